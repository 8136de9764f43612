"""A study of trials that train nothing: they log a score that follows from their values."""

import functools
import time
from pathlib import Path

from spaces import parse

from mnist_exp.config.compose import compose
from mnist_exp.config.run_config import plain
from mnist_exp.config.schema import Sweep, Tracking, Training
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial import Job, Outcome
from mnist_exp.sweep.trial_configs import TrialConfigs
from mnist_exp.sweep.worker import TrialListener
from mnist_exp.tracking.rungs import Rungs
from mnist_exp.tracking.store import connect

SPACES = {
    "grid": ["model.dropout=0.0,0.1,0.2", "seed=0,1,2,3"],
    "random": ["model.dropout=interval(0,0.5)", "optimizer=adam,sgd"],
    "tpe": ["model.dropout=interval(0,0.5)", "optimizer=adam,sgd"],
    "asha": ["model.dropout=interval(0,0.5)", "optimizer=adam,sgd", "training.epochs=8"],
    "hyperband": ["model.dropout=interval(0,0.5)", "optimizer=adam,sgd", "training.epochs=4"],
}


def light(job: Job) -> Outcome:
    """A trial without a net."""
    from mnist_exp.tracking.mlflow_run import MlflowRun

    keys = job.config.settings(Tracking)
    store = connect(keys)
    listener = TrialListener(job, None, Rungs(store, job.sweep))
    with MlflowRun.take_over_run(store, Path(keys.folder), job.run_id, job.name) as active:
        epochs, dropout = job.config.settings(Training).epochs, job.config.values["model"]["dropout"]
        curve = tuple(1 - abs(dropout - 0.2) - 1 / (2 + epoch) for epoch in range(epochs))
        for epoch, value in enumerate(curve, 1):
            active.log_metrics({"val/accuracy": value}, step=epoch)
            if listener.on_epoch(epoch, {"val_accuracy": value}):
                curve = curve[:epoch]
                active.log_tags({"pruned": "true"})
                break
        time.sleep(0.01)
        active.log_metrics({"score": curve[-1]}, step=0)
        active.log_tags({"epochs": str(len(curve))})
    return Outcome(score=curve[-1], curve=curve, epochs=len(curve), pruned=listener.pruned)


def study_of(algorithm: str, *overrides: str, **settings: object) -> Study:
    """Small enough to run to its end in seconds."""
    given = (*SPACES.get(algorithm, []), *overrides)
    configs = _compose(given)
    most = None if algorithm in ("grid", "hyperband") else 10
    pruner = "asha" if algorithm == "asha" else "off"
    keys = sweep_settings(**{"max_trials": most, "factor": 2, "pruner": pruner, **settings})
    algorithm = "tpe" if algorithm == "asha" else algorithm
    return Study("study", keys, algorithm, configs, given, "0")


@functools.cache
def _compose(given: tuple[str, ...]) -> TrialConfigs:
    return TrialConfigs.compose(parse({}, "test", given, {}), given)


def sweep_settings(**settings: object) -> Sweep:
    """The defaults of conf/sweep, but for these."""
    return Sweep(**{**plain(compose([]).config.sweep), **settings})
