"""python -m mnist_exp promote RUN: registers a run's model and makes it the champion, if it is not worse than that."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnist_exp.errors import TrackingError
from mnist_exp.evaluation.statistics import PairedTest, test_pair
from mnist_exp.tracking.find import find_run
from mnist_exp.tracking.registry import ALIAS, _champion, _register
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import compared

if TYPE_CHECKING:
    from mlflow.entities import Run


import click

from mnist_exp.commands.options import with_tracking
from mnist_exp.config.schema import Tracking
from mnist_exp.log import chatter_in_log
from mnist_exp.tracking.store import existing_store


@click.command(help=__doc__)
@click.argument("run")
@click.option("--name", default="mnist_exp", show_default=True, help="Of the registered model.")
@click.option("--force", is_flag=True, help="Promote it even if it is worse.")
@with_tracking
def command(run: str, name: str, force: bool, tracking: Tracking) -> None:
    """Says how it did against the champion before."""

    with chatter_in_log():
        done = promote(existing_store(tracking), run, name, force)
    if done.test:
        click.echo(
            f"{done.test.verdict} against version {done.before}: of {done.test.images:,} validation images only this "
            f"one has {done.test.first_only} right, only that {done.test.second_only} (p={done.test.p:.2g})"
        )
    elif done.before:
        click.echo(f"not compared with version {done.before}: they share no validation images")
    click.echo(f"{done.uri} is version {done.version}")


@dataclass(frozen=True)
class Promotion:
    """A registered version that the alias points to; test: against the champion before, seen from the new one."""

    uri: str
    version: str
    before: str | None
    test: PairedTest | None


def promote(store: Store, wanted: str, name: str, force: bool) -> Promotion:
    """Registers the model of a run as `name` and moves the alias `champion` to it; versions before stay.

    The images of the test are the validation images of both runs: neither trained on them, and the test set is not for
    choosing. Raises TrackingError, nothing registered, where it has fewer of them right or they share none, unless it
    is forced.
    """
    run = find_run(store, wanted)
    if run.info.status != "FINISHED":
        raise TrackingError(f"only a finished run can be promoted, but {run.info.run_name} is {run.info.status}")
    champion = _champion(store, name)
    test = None
    if champion is not None:
        test = test_pair(compared(store, run).predictions, compared(store, champion[1]).predictions, "val")
        if not force:
            _check(run, champion[1], test)
    version = _register(store, run, name, _facts(test))
    return Promotion(f"models:/{name}@{ALIAS}", version, champion[0] if champion else None, test)


def _check(run: "Run", champion: "Run", test: PairedTest | None) -> None:
    names = f"{run.info.run_name} ({run.info.run_id[:8]}) and {champion.info.run_name} ({champion.info.run_id[:8]})"
    if test is None:
        raise TrackingError(
            f"{names} share no validation images, so they cannot be compared; train on the same split, or give --force"
        )
    if test.first_only < test.second_only:
        raise TrackingError(
            f"a champion must not be worse than the one before, but of {test.images:,} validation images only "
            f"{run.info.run_name} has {test.first_only} right, only the champion {test.second_only} "
            f"(p={test.p:.2g}); give --force to promote it all the same"
        )


def _facts(test: PairedTest | None) -> dict[str, str]:
    if test is None:
        return {}
    return {
        "against_champion": test.verdict,
        "right_alone": str(test.first_only),
        "champion_right_alone": str(test.second_only),
        "p": f"{test.p:.3g}",
    }
