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
from mnist_exp.sweep.display import Board
from mnist_exp.sweep.executors import executor, width
from mnist_exp.sweep.plan import total
from mnist_exp.sweep.study import Study, check, define, resumed
from mnist_exp.terminal import where
from mnist_exp.tracking.owner import end_dead_runs
from mnist_exp.tracking.store import connect

if TYPE_CHECKING:
    from mnist_exp.sweep.cluster import Cluster
    from mnist_exp.sweep.engine import Engine
    from mnist_exp.sweep.executors import Inline, Local
    from mnist_exp.tracking.store import Store
    from mnist_exp.tracking.sweep_run import SweepRun

OWN_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
WHY = {
    "done": "all of them",
    "exhausted": "the space holds no other",
    "timeout": "sweep.timeout is over",
    "stopped": "stopped",
    "failures": "stopped",
}


def sweep(config: DictConfig, overrides: Sequence[str]) -> float | None:
    """Runs the sweep of a command line and returns the best score.

    Raises SystemExit, with what to do said, where the sweep cannot start or did not come to its end.
    """
    board = Board()
    try:
        with terminable(), chatter_in_log():
            return _sweep(config, list(overrides), board)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except (KeyboardInterrupt, Terminated) as stop:
        board.say("stopped", "at once; the trials that ran are run again by sweep.resume=latest")
        raise SystemExit(143 if isinstance(stop, Terminated) else 130) from stop


def _sweep(config: DictConfig, overrides: list[str], board: Board) -> float | None:
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

        plan(define(cfg, choices, overrides), tracking, width(keys), board)
        return None
    study = None if cfg.sweep.resume is not None else define(cfg, choices, overrides)
    from mnist_exp.tracking.store import long_retries

    store = connect(tracking)
    end_dead_runs(store)
    with executor(keys, store.uri) as slots, long_retries():  # connected before anything is recorded
        study, record = _recorded(study, cfg, overrides, tracking, store)
        return _run(study, record, tracking, slots, board)


def _recorded(
    study: Study | None, cfg: DictConfig, overrides: list[str], tracking: Tracking, store: "Store"
) -> "tuple[Study, SweepRun]":
    """The study, else the one to resume, and its record, which this process holds from here on."""
    from mnist_exp.tracking.sweep_run import SweepRun

    if study is not None:
        return study, SweepRun.create(store, tracking.experiment, study.name, study.frozen())
    record = SweepRun.resume(store, str(cfg.sweep.resume))
    study = resumed(record, cfg, overrides)
    record.take_over()
    return study, record


def _run(
    study: Study, record: "SweepRun", tracking: Tracking, slots: "Inline | Local | Cluster", board: Board
) -> float | None:
    try:
        with slots, board.live():
            from mnist_exp.sweep.recorder import search

            board.begin_sweep(study, total(study), slots.width, lambda run: record.curve(run, study.settings.objective))
            engine = search(study, record, tracking, slots, board)
        best = _conclude(study, record, engine, board)
    except BaseException as error:
        record.end("FAILED" if isinstance(error, Exception) else "KILLED", f"{type(error).__name__}: {error}")
        raise
    record.end({"stopped": "KILLED", "failures": "FAILED"}.get(engine.why, "FINISHED"))  # type: ignore[arg-type]
    board.say("sweep", f"{record.name} ({record.id[:8]})")
    board.say("open", where(record.store.uri))
    if engine.why == "stopped":
        board.say("go on", f"python -m mnist_exp -m sweep.resume={record.id[:8]}")
        raise SystemExit(130)
    if engine.why == "failures":
        board.say("error", f"{len(engine.failures)} trials in a row failed: {engine.failures[-1]}")
        raise SystemExit(1)
    return best


def _conclude(study: Study, record: "SweepRun", engine: "Engine", board: Board) -> float | None:
    """Scores the winner on the test set, writes the report and keeps both with the sweep."""
    from mnist_exp.sweep.report import report
    from mnist_exp.sweep.winner import crown, save

    attempts = record.trials()
    best = next(iter(report.ranked(study, attempts)), None)
    whole = study.algorithm in ("grid", "hyperband") and engine.why == "exhausted"
    board.end_sweep(WHY["done" if whole else engine.why], study.settings.objective, best.number if best else None)
    winner = crown(study, record, best) if best and engine.why not in ("stopped", "failures") else None
    with tempfile.TemporaryDirectory() as folder:
        report.write(Path(folder), study, record, attempts, winner)
        if winner:
            Path(folder, "best.yaml").write_text(winner.config, encoding="utf-8")
        record.log_files(Path(folder))
    if winner:
        board.results(winner)
        if path := study.settings.save_best:
            save(winner, path)
            board.say("saved", f"the winner's config as {shlex.quote(path)}")
    return best.score if best else None
