"""python -m mnist_exp reproduce RUN: trains a recorded run again and says whether the result is the same."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
import numpy as np

from mnist_exp import experiment
from mnist_exp.commands.options import (
    RUN_IS,
    allow,
    json_option,
    print_found,
    print_json,
    whitelist_option,
    with_tracking,
)
from mnist_exp.config.check import check_values
from mnist_exp.config.own_code import digest_own_code
from mnist_exp.config.schema import Tracking
from mnist_exp.data.load import load_splits
from mnist_exp.errors import DataError, Problem
from mnist_exp.evaluation.statistics import PairedTest, test_pair
from mnist_exp.log import hide_library_output
from mnist_exp.terminal import RunDisplay
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import experiment_name, find_finished
from mnist_exp.tracking.registry import load_model
from mnist_exp.tracking.store import Store, connect_existing
from mnist_exp.tracking.stored_run import StoredRun, fetch_run, read_config, read_run
from mnist_exp.trainer import Listener

# What is compared, in words, and the beginnings of its tags.
ENVIRONMENT = {
    "versions": (tags.VERSION,),
    "hardware": (tags.HARDWARE, tags.SYSTEM),
    "the code of mnist_exp": (tags.CODE,),
    "the commit of the current folder": (tags.COMMIT, tags.DIRTY),
    "the code that the config names": (tags.OWN_CODE,),
}


@dataclass(frozen=True)
class Reproduction:
    """How a second training compares with the first.

    largest: the largest difference of a weight. accuracies: on validation, of the first and the second training.
    test: McNemar's test of the second against the first on the validation images.
    """

    name: str
    run_id: str
    largest: float
    accuracies: tuple[float, float]
    test: PairedTest | None

    @property
    def verdict(self) -> Literal["identical", "within tolerance", "different"]:
        """Identical: every weight. Within tolerance: no difference shown on the same validation images."""
        if self.largest == 0 and self.accuracies[0] == self.accuracies[1]:
            return "identical"
        return "within tolerance" if self.test and self.test.verdict == "no difference shown" else "different"


def find_changes(run: StoredRun, now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Returns what is different in the environment now, of what the run recorded: the value then and now, by tag."""
    known = tuple(start for starts in ENVIRONMENT.values() if _is_recorded(run, starts) for start in starts)
    keys = sorted(key for key in {*run.tags, *now} if key.startswith(known))
    pairs = {key: (run.tags.get(key, "unknown"), now.get(key, "unknown")) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _is_recorded(run: StoredRun, starts: tuple[str, ...]) -> bool:
    return any(key.startswith(starts) for key in run.tags)


def reproduce(store: Store, settings: Tracking, first: StoredRun, listener: Listener) -> Reproduction:
    """Trains the run again, as a run of its own. Raises DataError if the data have changed."""
    changes = {"tracking": settings.model_dump(), "name": f"{first.name}-again"}
    config = check_values(read_config(store, first) | changes, first.choices)
    digest, before = load_splits(config).digest, first.params["dataset.digest"]
    if digest != before:
        raise DataError(Problem("dataset.digest", f"must be that of the run, {before}", digest, "put that data back"))
    result = experiment.run(config, listener)
    assert result.run_id is not None
    store.set_tags(result.run_id, {tags.REPRODUCES: first.id})
    one, two = read_run(store, first), read_run(store, fetch_run(store, result.run_id))
    largest, test = _largest_difference(store, one.id, two.id), test_pair(two.predictions, one.predictions, "val")
    accuracies = one.metrics["val/accuracy"], two.metrics["val/accuracy"]
    return Reproduction(result.name, result.run_id, largest, accuracies, test)


def _largest_difference(store: Store, *run_ids: str) -> float:
    """Returns the largest difference between two weights of the same place in two models."""
    first, second = (load_model(store.uri, run_id).get_weights() for run_id in run_ids)
    pairs = zip(first, second, strict=True)
    return max(float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max()) for a, b in pairs)


@click.command(
    help=__doc__,
    epilog=f"{RUN_IS} Exits with 1 if the result is different, or with --check if the environment is different.",
)
@click.argument("run")
@click.option("--check", is_flag=True, help="Only compare versions, commit and hardware; train nothing.")
@click.option("--experiment", help="The experiment of the new run; by default that of the first run.")
@whitelist_option
@json_option("an object: changes, run; after a training also name, run_id, largest, accuracies, test, verdict.")
@with_tracking
def command(
    run: str, check: bool, experiment: str | None, allowed: tuple[str, ...], as_json: bool, settings: Tracking
) -> None:  # fmt: skip
    """Prints what changed since, and whether the result is the same."""
    from mnist_exp.tracking.environment import collect_tags

    store = allow(connect_existing(settings), allowed)
    found = find_finished(store, run)
    print_found(found, as_json)
    first = fetch_run(store, found.run.model_run_id)
    settings = settings.model_copy(update={"experiment": experiment or experiment_name(store, first)})
    with tempfile.TemporaryDirectory() as empty, hide_library_output():
        now = collect_tags(Path(empty)) | {tags.OWN_CODE: digest_own_code(read_config(store, first)) or "none"}
        changes = find_changes(first, now)
    if not as_json:
        _print_changes(first, changes)
    if check:
        if as_json:
            print_json({"changes": changes, "run": found.to_record()})
        raise SystemExit(bool(changes))
    display = RunDisplay()
    with hide_library_output() as display.output, display.cleared():
        again = reproduce(store, settings, first, Listener() if as_json else display)
    if as_json:
        print_json({"changes": changes, **asdict(again), "verdict": again.verdict, "run": found.to_record()})
    else:
        _print_result(again)
    raise SystemExit(again.verdict == "different")


def _print_changes(run: StoredRun, changes: Mapping[str, tuple[str, str]]) -> None:
    """Prints what changed, what is the same, and what cannot be compared because the run did not record it."""
    for key, (then, now) in changes.items():
        click.echo(f"{key}: {then} then, {now} now")
    same = [
        name
        for name, starts in ENVIRONMENT.items()
        if _is_recorded(run, starts) and not any(key.startswith(starts) for key in changes)
    ]
    missing = [name for name, starts in ENVIRONMENT.items() if not _is_recorded(run, starts)]
    if same:
        click.echo(f"the same as in the run: {', '.join(same)}")
    if missing:
        click.echo(f"not recorded by the run: {', '.join(missing)}")


def _print_result(again: Reproduction) -> None:
    before, accuracy = again.accuracies
    click.echo(f"validation accuracy {before:.4%} then, {accuracy:.4%} now")
    click.echo(f"largest difference of a weight {again.largest:.2g}")
    if again.test and again.verdict != "identical":
        click.echo(
            f"of {again.test.images:,} validation images only the new run has {again.test.first_only} right, only the "
            f"first {again.test.second_only}; p={again.test.p:.2g}"
        )
    click.echo(f"verdict: {again.verdict}  ({again.name}, {again.run_id[:8]})")
