"""Finds runs: by id, by name, `latest`, `best`, as a registered model, or by parameters and metrics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mnist_exp.config.objective import Objective
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.tracking import tags
from mnist_exp.tracking.registry import find_registered
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import StoredRun, to_stored_run

if TYPE_CHECKING:
    from mlflow.entities import Run

FINISHED = "attributes.status = 'FINISHED'"
RUNS = f"tags.{tags.KIND} != 'sweep' and tags.{tags.KIND} != 'execution'"
RESUMABLE, SWEEPS = f"tags.{tags.KIND} = 'run'", f"tags.{tags.KIND} = 'sweep'"
NEWEST = "attributes.start_time DESC"
SHORTEST = 4  # characters of an id
DIGESTS = ("dataset.digest", "dataset.validation_digest")


def find_run(store: Store, wanted: str, experiment: str | None = None, among: str = RUNS) -> StoredRun:
    """Finds one run.

    wanted: an id, the unique start of an id, a name, `latest`, `best` or `models:/NAME@ALIAS`. `best` has the highest
    validation accuracy of the finished runs and trials with the same data and validation images as the newest one.
    experiment: the name of the experiment to look in; for `best` by default that of the newest run.
    among: RUNS; or RESUMABLE or SWEEPS, which have no best and no models.
    Raises TrackingError, with the nearest runs, if no run or several runs match.
    """
    with store_errors(store.uri):
        if among == RUNS and wanted.startswith("models:/"):
            return find_registered(store, wanted)
        inside = experiment_ids(store, experiment)
        if wanted == "latest":
            runs = _search(store, among, inside, most=1)
        elif among == RUNS and wanted == "best":
            runs = _search_best(store, inside)
        else:
            runs = _search_named(store, wanted, inside, among)
        if len(runs) == 1:
            return runs[0]
        shown = runs or _search(store, among, inside, most=5)
    kind = "sweep" if among == SWEEPS else "run"
    listed = ", ".join(run.label for run in shown[:5])
    if runs:
        raise TrackingError(Problem(f"{kind} {wanted!r}", f"is ambiguous: {listed}", remedy="give an id"))
    if not listed:
        command = "python -m mnist_exp -m ..." if among == SWEEPS else "python -m mnist_exp"
        raise TrackingError(Problem("the store", f"has no {kind} yet", remedy=f"start one with: {command}"))
    words = ", a name, latest, best or models:/NAME@ALIAS" if among == RUNS else ", a name or latest"
    raise TrackingError(Problem(f"the {kind}", f"must be an id{words}", wanted, f"the newest are: {listed}"))


def find_finished(store: Store, wanted: str, experiment: str | None = None) -> StoredRun:
    """Finds a finished run, as `find_run` does. Raises TrackingError if it did not finish: it has no model."""
    run = find_run(store, wanted, experiment)
    if not run.is_finished:
        remedy = "choose a finished run; list them with: python -m mnist_exp compare"
        raise TrackingError(Problem(run.label, "must be FINISHED", run.status, remedy))
    return run


def search_runs(
    store: Store, objective: Objective, where: Mapping[str, str], most: int, experiment: str | None = None,
    without: Sequence[tuple[str, str]] = (),
) -> list[StoredRun]:  # fmt: skip
    """Returns the finished runs and trials with these parameters, the best first, `most` at the most.

    without: parameters and values; runs that lack one of the parameters or have one of the values are left out.
    """
    conditions = [RUNS, FINISHED, *(f"params.`{key}` = '{value}'" for key, value in where.items())]
    conditions += [f"params.`{key}` != '{value}'" for key, value in without]
    order = f"metrics.`{objective.metric}` {'ASC' if objective.direction == 'min' else 'DESC'}"
    with store_errors(store.uri):
        store.analyze()
        return _search(store, " and ".join(conditions), experiment_ids(store, experiment), most, order)


def list_runs(store: Store, condition: str = "", inside: list[str] | None = None) -> list[StoredRun]:
    """Returns all runs that meet a condition in MLflow's search language, newest first.

    inside: ids of the experiments to look in; by default all.
    """
    return [to_stored_run(run) for run in fetch_runs(store, condition, inside)]


def fetch_runs(store: Store, condition: str, inside: list[str] | None = None) -> "Iterator[Run]":
    """Yields what `list_runs` returns as MLflow's own objects."""
    inside = inside or experiment_ids(store)
    return iterate_pages(partial(store.client.search_runs, inside, condition, order_by=[NEWEST]))


def iterate_pages(search: Callable[..., Any]) -> Iterator[Any]:
    """Yields everything that a search function of MLflow finds, page by page."""
    page = search()
    yield from page
    while page.token:
        page = search(page_token=page.token)
        yield from page


def experiment_ids(store: Store, name: str | None = None) -> list[str]:
    """Returns the id of the experiment with this name, or the ids of all. Raises TrackingError if it is unknown."""
    if name is None:
        return [experiment.experiment_id for experiment in iterate_pages(store.client.search_experiments)]
    experiment = store.client.get_experiment_by_name(name)
    if experiment is None:
        known = ", ".join(experiment.name for experiment in store.client.search_experiments())
        raise TrackingError(Problem("the experiment", f"must be one of {known}", name))
    return [experiment.experiment_id]


def experiment_name(store: Store, run: StoredRun) -> str:
    """Returns the name of the experiment that a run belongs to."""
    with store_errors(store.uri):
        return str(store.client.get_experiment(run.experiment_id).name)


def _search(store: Store, condition: str, inside: list[str], most: int, order: str = NEWEST) -> list[StoredRun]:
    return list(map(to_stored_run, store.client.search_runs(inside, condition, order_by=[order], max_results=most)))


def _search_named(store: Store, wanted: str, inside: list[str], among: str) -> list[StoredRun]:
    """Searches by name first, then by the first characters of an id."""
    quote = '"' if "'" in wanted else "'"
    text = wanted.replace(quote, "")  # MLflow's search language has no way to write both
    runs = _search(store, f"attributes.run_name = {quote}{text}{quote} and {among}", inside, most=6)
    if not runs and len(wanted) >= SHORTEST:
        runs = _search(store, f"attributes.run_id LIKE {quote}{text}%{quote} and {among}", inside, most=6)
    return runs


def _search_best(store: Store, inside: list[str]) -> list[StoredRun]:
    newest = _search(store, f"{RUNS} and {FINISHED}", inside, most=1)
    if not newest:
        return []
    store.analyze()
    params = newest[0].params
    same_data = [f"params.`{key}` = '{params[key]}'" for key in DIGESTS if key in params]
    condition = " and ".join([RUNS, FINISHED, *same_data])
    return _search(store, condition, [newest[0].experiment_id], 1, "metrics.`val/accuracy` DESC")
