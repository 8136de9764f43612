"""What `-m` does, from Hydra's config to the exit status."""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from mnist_exp.config.compose import chosen
from mnist_exp.config.schema import Executor, Tracking
from mnist_exp.errors import ConfigError, UserError
from mnist_exp.log import chatter_in_log
from mnist_exp.signals import Terminated, terminable
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.executors import executor, width
from mnist_exp.sweep.plan import total
from mnist_exp.sweep.study import Study, check, define, resumed
from mnist_exp.terminal import where
from mnist_exp.tracking.store import store_of

if TYPE_CHECKING:
    from mnist_exp.sweep.cluster import Cluster
    from mnist_exp.sweep.engine import Engine
    from mnist_exp.sweep.executors import Inline, Local
    from mnist_exp.tracking.store import Store
    from mnist_exp.tracking.sweep_run import SweepRecord

OWN_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
WHY = {
    "done": "all of them",
    "exhausted": "every combination was tried",
    "timeout": "sweep.timeout is over",
    "stopped": "stopped",
    "failures": "stopped",
}


def sweep(config: DictConfig, overrides: Sequence[str]) -> float | None:
    """Runs the sweep of a command line and returns the best score.

    Raises SystemExit, after a line that says what to do, if the sweep cannot start, was stopped or found nothing.
    """
    display = SweepDisplay()
    try:
        with terminable(), chatter_in_log():
            return _sweep(config, list(overrides), display)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except (KeyboardInterrupt, Terminated) as stop:
        display.say(
            "stopped", "the running trials were ended; continue with: python -m mnist_exp -m sweep.resume=latest"
        )
        raise SystemExit(143 if isinstance(stop, Terminated) else 130) from stop


def _sweep(config: DictConfig, overrides: list[str], display: SweepDisplay) -> float | None:
    launcher = config.hydra.launcher._target_
    if launcher != OWN_LAUNCHER:
        raise ConfigError(
            f"trials run on an executor, not on a Hydra launcher, but got {launcher}; give executor=local, or "
            "hydra/sweeper=basic beside that launcher"
        )
    choices = chosen(config.hydra)
    cfg = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    check(cfg)
    tracking, keys = Tracking(**cfg.tracking), Executor(**cfg.executor)
    if cfg.sweep.plan:
        from mnist_exp.sweep.plan import plan

        plan(define(cfg, choices, overrides), tracking, width(keys), display)
        return None
    study = None if cfg.sweep.resume is not None else define(cfg, choices, overrides)
    from mnist_exp.tracking.store import patiently

    store = store_of(tracking)
    store.end_dead_runs()
    with executor(keys, store.uri) as slots, patiently():  # connected before anything is recorded
        study, record = _recorded(study, cfg, overrides, tracking, store)
        return _run(study, record, tracking, slots, display)


def _recorded(
    study: Study | None, cfg: DictConfig, overrides: list[str], tracking: Tracking, store: "Store"
) -> "tuple[Study, SweepRecord]":
    """Returns the study, or the one to resume, and its record, which now belongs to this process."""
    from mnist_exp.tracking.sweep_run import SweepRecord

    if study is not None:
        return study, SweepRecord.begin(store, tracking.experiment, study.name, study.to_record())
    record = SweepRecord.resume(store, str(cfg.sweep.resume))
    study = resumed(record, cfg, overrides)
    record.take_over()
    return study, record


def _run(
    study: Study, record: "SweepRecord", tracking: Tracking, slots: "Inline | Local | Cluster", display: SweepDisplay
) -> float | None:
    try:
        with slots, display.live():
            from mnist_exp.sweep.recorder import search

            display.begin_sweep(study, total(study), slots.width, lambda run: record.curve(run, study.objective.metric))
            engine = search(study, record, tracking, slots, display)
        best = _conclude(study, record, engine, display)
        problem = _problem(engine, best)
    except BaseException as error:
        record.end("FAILED" if isinstance(error, Exception) else "KILLED", f"{type(error).__name__}: {error}")
        raise
    record.end("KILLED" if engine.stop_reason == "stopped" else "FAILED" if problem else "FINISHED")
    display.say("sweep", f"{record.name} ({record.id[:8]})")
    display.say("open", where(record.store.uri))
    if engine.stop_reason == "stopped":
        display.say("resume", f"python -m mnist_exp -m sweep.resume={record.id[:8]}")
        raise SystemExit(130)
    if problem:
        display.say("error", problem)
        raise SystemExit(1)
    return best


def _problem(engine: "Engine", best: float | None) -> str:
    """Why a sweep has failed; empty if it has not."""
    if engine.stop_reason == "failures":
        return f"{len(engine.failures)} trials in a row failed: {engine.failures[-1]}"
    if best is None and engine.stop_reason != "stopped":
        last = f"; the last one failed: {engine.failures[-1]}" if engine.failures else ""
        return f"no trial is complete, so there is no winner{last}"
    return ""


def _conclude(study: Study, record: "SweepRecord", engine: "Engine", display: SweepDisplay) -> float | None:
    """Scores the winner on the test set, writes the report and keeps both with the sweep."""
    from mnist_exp.sweep.report import report
    from mnist_exp.sweep.winner import rank, save, score_winner

    trials = study.trials(record)
    best = next(iter(rank(trials, study.objective)), None)
    whole = study.algorithm in ("grid", "hyperband") and engine.stop_reason == "exhausted"
    display.end_sweep(
        WHY["done" if whole else engine.stop_reason], study.objective.metric, best.number if best else None
    )
    winner = score_winner(study, record, best) if best and engine.stop_reason not in ("stopped", "failures") else None
    with tempfile.TemporaryDirectory() as folder:
        report.write(Path(folder), study, record, trials, winner)
        if winner:
            Path(folder, "best.yaml").write_text(winner.config, encoding="utf-8")
        record.keep(Path(folder))
    if winner:
        display.results(winner)
        if path := study.settings.save_best:
            save(winner, path)
            display.say("saved", f"the winner's config as {shlex.quote(path)}")
    return best.score if best else None
