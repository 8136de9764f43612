"""Finds the run a command means: by id, name, `latest`, `best`, or as a registered model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mnist_exp.tracking.store import Store


from typing import TYPE_CHECKING

from mnist_exp.errors import TrackingError
from mnist_exp.tracking.store import Store, answering

if TYPE_CHECKING:
    from mlflow.entities import Run

FINISHED = "attributes.status = 'FINISHED'"
RUNS = "tags.kind != 'sweep' and tags.kind != 'execution'"
RESUMABLE, SWEEPS = "tags.kind = 'run'", "tags.kind = 'sweep'"
SHORTEST = 4  # characters of an id


def find_run(store: Store, wanted: str, experiment: str | None = None, among: str = RUNS) -> "Run":
    """The run of this id, unique start of an id, or name, `latest`, `best`, or `models:/NAME@ALIAS`.

    `best` has the highest validation accuracy of the finished runs and trials on the data and the validation images of
    the newest one; experiment: where to look for it, else that of the newest run; among: RUNS, or RESUMABLE or SWEEPS,
    which have no best and no models. Raises TrackingError, the near ones listed, where there is none or more than one.
    """
    with answering(store.uri):
        if among == RUNS and wanted.startswith("models:/"):
            return _registered(store, wanted)
        inside = places(store, experiment)
        if wanted == "latest":
            found = _search(store, among, inside, most=1)
        elif among == RUNS and wanted == "best":
            found = _best(store, inside)
        else:
            found = _named(store, wanted, inside, among)
        if len(found) == 1:
            return found[0]
        newest = found or _search(store, among, inside, most=5)
    kind = "sweep" if among == SWEEPS else "run"
    listed = ", ".join(f"{run.info.run_name} ({run.info.run_id[:8]})" for run in newest[:5])
    if found:
        raise TrackingError(f"{wanted!r} must mean one {kind}, but is the name of several: {listed}; give an id")
    words = ", latest, best or models:/NAME@ALIAS" if among == RUNS else " or latest"
    raise TrackingError(f"{wanted!r} must be a {kind}'s id, its name{words}; the newest are: {listed or 'none yet'}")


def places(store: Store, name: str | None) -> list[str]:
    """The ids of the experiment of this name, or of all. Raises TrackingError for an unknown one."""
    if name is None:
        return [found.experiment_id for found in store.client.search_experiments()]
    found = store.client.get_experiment_by_name(name)
    if found is None:
        known = ", ".join(one.name for one in store.client.search_experiments())
        raise TrackingError(f"an experiment must be one of {known}, but got {name!r}")
    return [found.experiment_id]


def _search(store: Store, condition: str, inside: list[str], most: int, order: str = "") -> "list[Run]":
    by = [order] if order else ["attributes.start_time DESC"]
    return list(store.client.search_runs(inside, condition, order_by=by, max_results=most))


def _named(store: Store, wanted: str, inside: list[str], among: str) -> "list[Run]":
    """By name, else by the start of an id."""
    quoted = wanted.replace("'", "")
    found = _search(store, f"attributes.run_name = '{quoted}' and {among}", inside, most=6)
    if not found and len(wanted) >= SHORTEST:
        found = _search(store, f"attributes.run_id LIKE '{quoted}%' and {among}", inside, most=6)
    return found


def _best(store: Store, inside: list[str]) -> "list[Run]":
    newest = _search(store, f"{RUNS} and {FINISHED}", inside, most=1)
    if not newest:
        return []
    store.analyze()
    params = newest[0].data.params
    alike = " and ".join(
        f"params.`{key}` = '{params[key]}'" for key in ("dataset.digest", "dataset.validation_digest") if key in params
    )
    condition = f"{RUNS} and {FINISHED}" + (f" and {alike}" if alike else "")
    return _search(store, condition, [newest[0].info.experiment_id], 1, "metrics.`val/accuracy` DESC")


def _registered(store: Store, uri: str) -> "Run":
    """The run that made a registered model: models:/NAME@ALIAS or models:/NAME/VERSION."""
    from mlflow.exceptions import MlflowException

    name, _, alias = uri.removeprefix("models:/").partition("@")
    try:
        if alias:
            version = store.client.get_model_version_by_alias(name, alias)
        else:
            name, _, number = name.rpartition("/")
            version = store.client.get_model_version(name, number)
    except MlflowException as error:
        known = ", ".join(f"models:/{model.name}" for model in store.client.search_registered_models())
        raise TrackingError(
            f"{uri} is no registered model; {f'there are {known}' if known else 'promote a run first'}"
        ) from error
    return store.client.get_run(str(version.run_id))


def model_run(run: "Run") -> str:
    """The id of the run that holds the model: of a trial with several seeds the best of them."""
    return str(run.data.tags.get("model_run", run.info.run_id))


def search(
    store: "Store", experiment: str | None, where: Mapping[str, str], sort: str, ascending: bool, most: int
) -> "list[Run]":
    """Finished runs and trials with these parameters, the best by a metric first."""
    from mnist_exp.tracking.store import answering

    conditions = [RUNS, FINISHED, *(f"params.`{key}` = '{value}'" for key, value in where.items())]
    order = f"metrics.`{sort}` {'ASC' if ascending else 'DESC'}"
    with answering(store.uri):
        store.analyze()
        return list(
            store.client.search_runs(
                places(store, experiment), " and ".join(conditions), order_by=[order], max_results=most
            )
        )
