"""python -m mnist_exp reproduce RUN: trains a recorded run again and says whether the same came out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from omegaconf import DictConfig, OmegaConf

from mnist_exp import experiment
from mnist_exp.config.compose import GROUPS
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import DataError, TrackingError
from mnist_exp.evaluation.statistics import PairedTest, test_pair
from mnist_exp.experiment import Listener
from mnist_exp.tracking.find import find_run, model_run
from mnist_exp.tracking.registry import load_model
from mnist_exp.tracking.store import Store, answering
from mnist_exp.tracking.stored_run import Compared, compared

if TYPE_CHECKING:
    from mlflow.entities import Run


import tempfile
from dataclasses import replace

import click

from mnist_exp.commands.options import with_tracking
from mnist_exp.log import chatter_in_log
from mnist_exp.terminal import Terminal
from mnist_exp.tracking.store import existing_store


@click.command(help=__doc__)
@click.argument("run")
@click.option("--check", is_flag=True, help="Only compare versions, commit and hardware; train nothing.")
@click.option("--experiment", help="Where the new run is recorded; else where the first one is.")
@with_tracking
def command(run: str, check: bool, experiment: str | None, tracking: Tracking) -> None:
    """Exits with 1 where the result is different, or with --check where anything around it is."""
    from mnist_exp.tracking import environment

    store = existing_store(tracking)
    first = recorded(store, run)
    experiment = experiment or store.client.get_experiment(first.run.info.experiment_id).name
    tracking = replace(tracking, experiment=experiment)
    with tempfile.TemporaryDirectory() as empty, chatter_in_log():
        found = changes(first.run, environment.tags(Path(empty)))
    for key, (before, now) in found.items():
        click.echo(f"{key}: {before} then, {now} now")
    if not found:
        click.echo("versions, commit and hardware are those of the run")
    if check:
        raise SystemExit(bool(found))
    terminal = Terminal()
    with chatter_in_log() as terminal.chatter, terminal.cleared():
        again = reproduce(store, tracking, first, terminal)
    first_accuracy, accuracy = again.accuracies
    click.echo(f"validation accuracy {first_accuracy:.4%} then, {accuracy:.4%} now")
    click.echo(f"largest difference of a weight {again.largest:.2g}")
    if again.test and again.verdict != "identical":
        click.echo(
            f"of {again.test.images:,} validation images only the new one has {again.test.first_only} right, only the "
            f"first {again.test.second_only}; p={again.test.p:.2g}"
        )
    click.echo(f"verdict: {again.verdict}  ({again.name}, {again.run_id[:8]})")
    raise SystemExit(again.verdict == "different")


SURROUNDINGS = ("version.", "hardware.", "mlflow.source.git.commit", "git.dirty", "system")


@dataclass(frozen=True)
class Recorded:
    """A run as it can be trained again: its config, the choices in its groups, and the digest of its data."""

    run: "Run"
    config: DictConfig
    choices: dict[str, str]
    digest: str


@dataclass(frozen=True)
class Reproduced:
    """How a second training compares with the first.

    largest: difference of any weight; test: McNemar's on the validation images; accuracies: before and now.
    """

    name: str
    run_id: str
    largest: float
    accuracies: tuple[float, float]
    test: PairedTest | None

    @property
    def verdict(self) -> Literal["identical", "within tolerance", "different"]:
        """Identical: every weight; within tolerance: no difference shown on the same validation images."""
        if self.largest == 0 and self.accuracies[0] == self.accuracies[1]:
            return "identical"
        return "within tolerance" if self.test and self.test.verdict == "no difference shown" else "different"


def recorded(store: Store, wanted: str) -> Recorded:
    """A finished run; wanted: as find_run has it. Raises TrackingError where it did not finish or kept no config."""
    run = find_run(store, wanted)
    with answering(store.uri):
        run = store.client.get_run(model_run(run))  # of a trial with several seeds the best
    name = f"{run.info.run_name} ({run.info.run_id[:8]})"
    if run.info.status != "FINISHED":
        raise TrackingError(f"only a finished run can be reproduced, but {name} is {run.info.status}")
    with answering(store.uri):
        config = OmegaConf.load(Path(store.client.download_artifacts(run.info.run_id, "config.yaml")))
    assert isinstance(config, DictConfig)
    params = run.data.params
    return Recorded(
        run, config, {group: params[group] for group in GROUPS if group in params}, params["dataset.digest"]
    )


def changes(run: "Run", now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What surrounded the run and is different now, before and now."""
    tags = run.data.tags
    keys = sorted(key for key in {*tags, *now} if key.startswith(SURROUNDINGS))
    found = {key: (tags.get(key, "unknown"), now.get(key, "unknown")) for key in keys}
    return {key: pair for key, pair in found.items() if pair[0] != pair[1]}


def reproduce(store: Store, tracking: Tracking, first: Recorded, listener: Listener) -> Reproduced:
    """Trains the run again, as a run of its own. Raises DataError where the data are others by now."""
    cfg = first.config.copy()
    cfg.tracking = vars(tracking)
    cfg.name = f"{first.run.info.run_name}-again"
    digest = experiment.load_splits(cfg.dataset).digest
    if digest != first.digest:
        raise DataError(f"a reproduction needs the data of the run, digest {first.digest}, but got {digest}")
    result = experiment.run(cfg, first.choices, listener)
    assert result.run_id is not None
    with answering(store.uri):
        store.client.set_tag(result.run_id, "reproduces", first.run.info.run_id)
        again = store.client.get_run(result.run_id)
    pair = compared(store, first.run), compared(store, again)
    return Reproduced(
        result.name,
        result.run_id,
        _largest(store, first.run.info.run_id, result.run_id),
        _accuracies(*pair),
        test_pair(pair[1].predictions, pair[0].predictions, "val"),
    )


def _largest(store: Store, *run_ids: str) -> float:
    """The largest difference between any two weights of two models of one architecture."""
    with answering(store.uri):
        first, second = (load_model(store.uri, run_id).get_weights() for run_id in run_ids)
    return max(
        float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max()) for a, b in zip(first, second, strict=True)
    )


def _accuracies(first: Compared, second: Compared) -> tuple[float, float]:
    return first.metrics["val/accuracy"], second.metrics["val/accuracy"]
