"""Runs a sweep, from a composed config to the exit status."""

import os
import shlex
import tempfile
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

from mnist_exp.config.compose import Composed
from mnist_exp.config.schema import Executor, Sweep, Tracking
from mnist_exp.errors import ConfigError, Problem, TrackingError
from mnist_exp.experiment import with_parent
from mnist_exp.log import hide_library_output
from mnist_exp.signals import INTERRUPTED, Terminated, exit_status, raise_on_signals
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.engine import Engine
from mnist_exp.sweep.executors import create_executor, prepare_executor, width
from mnist_exp.sweep.executors.base import TrialExecutor
from mnist_exp.sweep.executors.local import worker_environment
from mnist_exp.sweep.feed import read_first
from mnist_exp.sweep.plan import plan, size, total
from mnist_exp.sweep.result import SweepResult
from mnist_exp.sweep.steering import Steering
from mnist_exp.sweep.study import Study, check_settings, define_study, resume_study
from mnist_exp.terminal import DELIVER, command_to_open
from mnist_exp.tracking.outbox import deliver_runs, remove_dead_trials
from mnist_exp.tracking.owner import OwnershipLost, end_dead_runs
from mnist_exp.tracking.store import connect, long_retries
from mnist_exp.tracking.sweep_run import SweepRun

OWN_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
WHY = {
    "done": "every planned trial has run",
    "exhausted": "every combination was tried",
    "timeout": "sweep.timeout is over",
    "epochs": "the epochs of sweep.max_epochs are trained",
    "patience": "sweep.patience trials brought nothing better",
    "infeasible": "the nets of too many trials in a row violate a constraint",
}


def main(composed: Composed) -> int:
    """Runs the sweep of a command line and returns the exit status. Raises a UserError if it cannot start."""
    display = SweepDisplay()
    try:
        with raise_on_signals(), hide_library_output():
            result = run_sweep(composed, display)
    except (KeyboardInterrupt, Terminated) as stop:
        remedy = "continue with: python -m mnist_exp -m sweep.resume=latest"
        display.say("stopped", f"the running trials were ended; {remedy}")
        return exit_status(stop)
    if result is None:
        return 0
    return INTERRUPTED if result.stop_reason == "stopped" else int(bool(result.problem or result.undelivered))


def run_sweep(composed: Composed, display: SweepDisplay) -> SweepResult | None:
    """Runs a sweep, or goes on with one; None if it was only planned. Raises a UserError if it cannot start."""
    if composed.launcher not in (None, OWN_LAUNCHER):
        remedy = "give executor=local, or hydra/sweeper=basic beside that launcher"
        rule = "must be Hydra's own, because trials run on an executor"
        raise ConfigError(Problem("hydra/launcher", rule, composed.launcher, remedy))
    config = check_settings(composed)
    tracking, keys, resume = config.settings(Tracking), config.settings(Executor), config.settings(Sweep).resume
    if resume is None:
        composed = with_parent(composed)
    if config.settings(Sweep).plan:
        # A short training, too, gets a worker's share of the cores.
        environment = worker_environment(0, width(keys)) if keys.kind == "local" else {}
        with patch.dict(os.environ, environment):
            plan(define_study(composed), tracking, width(keys), display)
        return None
    prepare_executor(keys)  # the fork server imports its libraries while this process loads the data and the store
    study = define_study(composed) if resume is None else None
    store = connect(tracking)
    end_dead_runs(store)
    with create_executor(keys, store.uri) as executor, long_retries():  # connected before anything is recorded
        if study is not None:
            study = replace(study, queue=read_first(study, store))
            record = SweepRun.create(store, tracking.experiment, study.name, {**study.to_record(), "size": size(study)})
        else:
            sweep = config.settings(Sweep)
            record = SweepRun.resume(store, str(resume), force=sweep.take_over, on_wait=display.watch)
            study, change = resume_study(record, composed)
            record.take_over(change)
            if opened := record.openings():
                display.say("test set", f"{_opened_for(len(opened))}; another winner would be one more")
        steering = Steering(study, record, composed.source, display.say)
        steering.begin()
        with record.ownership.heartbeat(steering.look):
            return _run(steering, record, tracking, executor, display)


def _run(
    steering: Steering, record: SweepRun, tracking: Tracking, executor: TrialExecutor, display: SweepDisplay
) -> SweepResult:
    try:
        with executor, display.live():
            engine = _search(steering, record, tracking, executor, display)
        undelivered = tuple(_deliver_rest(engine, record, tracking))
        result = _conclude(steering.study, record, engine, display)
    except BaseException as error:
        with suppress(TrackingError):  # it is another process's to end, or the store is away
            record.end("FAILED" if isinstance(error, Exception) else "KILLED", f"{type(error).__name__}: {error}")
        raise
    finally:
        remove_dead_trials(Path(tracking.folder).resolve())  # on this machine; each trial does it on its own
    is_stopped = engine.stop_reason == "stopped"
    record.end("KILLED" if is_stopped else "FAILED" if result.problem else "FINISHED")
    display.say("sweep", f"{record.name} ({record.id[:8]})")
    display.say("open", command_to_open(record.store.uri))
    if is_stopped:
        display.say("resume", f"python -m mnist_exp -m sweep.resume={record.id[:8]}")
        return result
    if undelivered:
        trials = ", ".join(map(str, undelivered))
        display.say("warning", f"the store has not taken everything of trial {trials}; on its machine, {DELIVER}")
    if result.problem:
        display.say("error", result.problem)
    return replace(result, undelivered=undelivered)


def _search(
    steering: Steering, record: SweepRun, tracking: Tracking, executor: TrialExecutor, display: SweepDisplay
) -> Engine:
    """Runs the trials, and confirms the best, until there is nothing left and nobody has asked for more."""
    from mnist_exp.sweep.confirm import confirm
    from mnist_exp.sweep.search import search

    study = steering.study
    display.begin_sweep(study, total(study), executor.width, partial(record.curve, metric=study.objective.metric))
    while True:
        engine = search(steering.study, record, tracking, executor, display, steering=steering)
        if steering.study.settings.confirm and engine.stop_reason not in ("stopped", "failures"):
            confirming = confirm(steering.study, record, tracking, executor, display, steering)
            if confirming and confirming.stop_reason in ("stopped", "failures"):
                engine.stop_reason, engine.failures = confirming.stop_reason, confirming.failures
        if engine.stop_reason == "stopped" or steering.close():
            return engine


def _deliver_rest(engine: Engine, record: SweepRun, tracking: Tracking) -> list[int]:
    """Sends once more what the store has not taken of trials on this machine, those of earlier processes included.

    Returns the trials of this process of which it still lacks something.
    """
    if engine.stop_reason == "stopped":
        return list(engine.undelivered)
    whole = {one.folder.name for one in deliver_runs(record.store, Path(tracking.folder).resolve()) if one.is_whole}
    folders = {number: {Path(folder).name for folder in found} for number, found in engine.undelivered.items()}
    return [number for number, names in folders.items() if not names <= whole]


def _opened_for(models: int) -> str:
    return f"opened for {models} {'model' if models == 1 else 'models'} of this sweep"


def _problem(engine: Engine, has_winner: bool, is_bound: bool) -> str:
    """Returns why a search has failed; empty if it has not. is_bound: whether there are constraints."""
    if engine.stop_reason == "failures":
        return f"{len(engine.failures)} trials in a row failed: {engine.failures[-1]}"
    if not has_winner and engine.stop_reason != "stopped":
        last = f"; the last one failed: {engine.failures[-1]}" if engine.failures else ""
        return f"no trial is complete{' and meets the constraints' * is_bound}, so there is no winner{last}"
    return ""


def _conclude(study: Study, record: SweepRun, engine: Engine, display: SweepDisplay) -> SweepResult:
    """Scores the winner on the test set, writes the report and keeps both with the sweep."""
    from mnist_exp.sweep.report import report
    from mnist_exp.sweep.winner import rank, save, score_winner

    trials = study.trials(record)
    best = next(iter(rank(trials, study.objective)), None)
    whole = study.algorithm in ("grid", "hyperband") and engine.stop_reason == "exhausted"
    why = WHY.get("done" if whole else engine.stop_reason, "stopped")
    display.end_sweep(why, best.number if best else None)
    problem, winner = _problem(engine, best is not None, bool(study.constraints)), None
    if engine.stop_reason not in ("stopped", "failures"):
        try:
            winner = score_winner(study, record, trials)
        except OwnershipLost:
            raise
        except TrackingError as error:  # the report is written all the same
            problem = str(error)
    record.ownership.check()
    with tempfile.TemporaryDirectory() as folder:
        report.write(Path(folder), study, record, trials, winner)
        if winner:
            Path(folder, "best.yaml").write_text(winner.config, encoding="utf-8")
        record.log_files(Path(folder))
    if winner:
        display.confirmed(winner)
        display.results(winner)
        if len(winner.opened) > 1:
            display.say("test set", f"{_opened_for(len(winner.opened))}: {winner.openings}")
        if winner.note:
            display.say("note", winner.note)
        if path := study.settings.save_best:
            save(winner, path)
            display.say("saved", f"the winner's config as {shlex.quote(path)}")
    return SweepResult(record, study, trials, winner, engine.stop_reason, problem)
