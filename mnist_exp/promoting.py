"""Makes a run's model the champion, unless it is worse than the one that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnist_exp.comparing import Paired, compared, paired
from mnist_exp.errors import TrackingError
from mnist_exp.tracking.lookup import find_run, model_run
from mnist_exp.tracking.store import Store, answering, point_mlflow_at

if TYPE_CHECKING:
    from mlflow.entities import Run

ALIAS = "champion"


@dataclass(frozen=True)
class Promotion:
    """A registered version that the alias points to; test: against the champion before, seen from the new one."""

    uri: str
    version: str
    before: str | None
    test: Paired | None


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
        test = paired(compared(store, run).predictions, compared(store, champion[1]).predictions, "val")
        if not force:
            _check(run, champion[1], test)
    version = _register(store, run, name, _facts(test))
    return Promotion(f"models:/{name}@{ALIAS}", version, champion[0] if champion else None, test)


def _champion(store: Store, name: str) -> "tuple[str, Run] | None":
    """The version that is champion, and its run."""
    from mlflow.exceptions import MlflowException

    try:
        version = store.client.get_model_version_by_alias(name, ALIAS)
    except MlflowException:  # no such model, or no such alias yet
        return None
    with answering(store.uri):
        return str(version.version), store.client.get_run(str(version.run_id))


def _check(run: "Run", champion: "Run", test: Paired | None) -> None:
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


def _facts(test: Paired | None) -> dict[str, str]:
    if test is None:
        return {}
    return {
        "against_champion": test.verdict,
        "right_alone": str(test.first_only),
        "champion_right_alone": str(test.second_only),
        "p": f"{test.p:.3g}",
    }


def _register(store: Store, run: "Run", name: str, facts: Mapping[str, str]) -> str:
    import mlflow

    with answering(store.uri):
        point_mlflow_at(store.uri)
        found = mlflow.register_model(f"runs:/{model_run(run)}/model", name, tags=dict(facts))
        store.client.set_registered_model_alias(name, ALIAS, str(found.version))
    return str(found.version)
