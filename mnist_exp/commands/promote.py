"""python -m mnist_exp promote RUN: registers a run's model and makes it the champion, unless it is worse."""

from dataclasses import asdict, dataclass

import click

from mnist_exp.commands.options import RUN_IS, json_option, print_found, print_json, with_store
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.evaluation.statistics import PairedTest, test_pair
from mnist_exp.log import hide_library_output
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import find_finished
from mnist_exp.tracking.registry import CHAMPION, find_champion, register_champion
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, read_run


@dataclass(frozen=True)
class Promotion:
    """A registered version that is the champion.

    before: the version that was it until now; None if there was none.
    test: against the champion before, seen from the new one.
    changed: whether the version is new. It is not if the run was the champion already.
    """

    uri: str
    version: str
    before: str | None
    test: PairedTest | None
    changed: bool = True


def promote(store: Store, run: StoredRun, name: str, force: bool) -> Promotion:
    """Registers the model of a run as `name` and moves the alias `champion` to it. Earlier versions are kept.

    If the run's model is the champion already, nothing changes.
    The test uses the validation images of both runs: neither trained on them, and the test set is not for choosing.
    Raises TrackingError, with nothing registered, if the run has fewer of them right or if there are none in common,
    unless it is forced.
    """
    uri, champion = f"models:/{name}@{CHAMPION}", find_champion(store, name)
    test = None
    if champion is not None:
        version, before = champion
        if before.id == run.model_run_id:
            return Promotion(uri, version, version, test=None, changed=False)
        test = test_pair(read_run(store, run).predictions, read_run(store, before).predictions, "val")
        if not force:
            _check(run, before, test)
    version = register_champion(store, run, name, _version_tags(test) if test else {})
    return Promotion(uri, version, champion[0] if champion else None, test)


def _check(run: StoredRun, champion: StoredRun, test: PairedTest | None) -> None:
    if test is None:
        rule, remedy = "have no validation images in common", "train on the same split, or give --force"
        raise TrackingError(Problem(f"{run.label} and {champion.label}", rule, remedy=remedy))
    if test.first_only < test.second_only:
        rule = f"must not be worse than the champion {champion.label}: {_counts(test, 'this run', 'the champion')}"
        raise TrackingError(Problem(run.label, rule, remedy="promote it nevertheless with --force"))


def _counts(test: PairedTest, new: str, champion: str) -> str:
    right = f"only {new} has {test.first_only} right, only {champion} {test.second_only} (p={test.p:.2g})"
    return f"of {test.images:,} validation images {right}"


def _version_tags(test: PairedTest) -> dict[str, str]:
    return {
        tags.AGAINST_CHAMPION: test.verdict,
        tags.RIGHT_ALONE: str(test.first_only),
        tags.CHAMPION_RIGHT_ALONE: str(test.second_only),
        tags.P: f"{test.p:.3g}",
    }


@click.command(
    help=__doc__, epilog=f"{RUN_IS} Exits with 1 if the model is worse than the champion; nothing is registered then."
)
@click.argument("run")
@click.option("--name", default="mnist_exp", show_default=True, help="The name of the registered model.")
@click.option("--force", is_flag=True, help="Promote it even if it is worse.")
@json_option("an object: uri, version, before, changed, run, test (null, or first_only, second_only, images, p).")
@with_store
def command(run: str, name: str, force: bool, as_json: bool, store: Store) -> None:
    """Prints how the model compares with the champion before."""
    with hide_library_output():
        found = find_finished(store, run)
    print_found(found, as_json)
    with hide_library_output():
        done = promote(store, found.run, name, force)
    if as_json:
        print_json({**asdict(done), "run": found.to_record()})
        return
    if not done.changed:
        click.echo(
            f"{done.uri} is version {done.version}, which has the model of this run already; nothing was changed"
        )
        return
    if done.test:
        click.echo(f"{done.test.verdict} against version {done.before}: {_counts(done.test, 'this one', 'that')}")
    elif done.before:
        click.echo(f"not compared with version {done.before}: they have no validation images in common")
    click.echo(f"{done.uri} is version {done.version}")
