"""Finds runs: by id, by name, `latest`, `best`, as a registered model, or by parameters and metrics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
RUNS_AND_SWEEPS = f"tags.{tags.KIND} != 'execution'"
RANKED = f"{RUNS} and {FINISHED} and tags.{tags.PRUNED} IS NULL"  # the training of a pruned trial was cut short
RESUMABLE, SWEEPS = f"tags.{tags.KIND} = 'run'", f"tags.{tags.KIND} = 'sweep'"
NEWEST = "attributes.start_time DESC"
SHORTEST = 4  # characters of an id
DATASET = "dataset.name"
DIGESTS = ("dataset.digest", "dataset.validation_digest")
MOST_COUNTED, MOST_DATASETS = 100, 10  # a message says "more than" and "..." beyond them


@dataclass(frozen=True)
class Found:
    """A run that was found. reason: why it is this one, as `line` ends."""

    run: StoredRun
    reason: str

    @property
    def dataset(self) -> str:
        """The name of the data set and the first characters of its digest."""
        digest = self.run.params.get("dataset.digest")
        return self.run.params.get(DATASET, "unknown data") + (f" (digest {digest[:8]})" if digest else "")

    @property
    def line(self) -> str:
        """Run, data set, score and reason, which every command prints before it uses the run."""
        accuracy = self.run.metrics.get("val/accuracy")
        score = "no val/accuracy" if accuracy is None else f"val/accuracy {accuracy:.2%}"
        return f"run  {self.run.label}: {self.dataset}, {score}, {self.reason}"

    def to_record(self) -> dict[str, Any]:
        """Returns what `line` says as plain values."""
        params, metrics = self.run.params, self.run.metrics
        return {
            "name": self.run.name,
            "id": self.run.id,
            "dataset": params.get(DATASET),
            "dataset_digest": params.get("dataset.digest"),
            "val/accuracy": metrics.get("val/accuracy"),
            "reason": self.reason,
        }


def find_run(store: Store, wanted: str, experiment: str | None = None, among: str = RUNS) -> StoredRun:
    """Finds one run.

    wanted: an id, the unique start of an id, a name, `latest`, `best`, `best:DATASET` or `models:/NAME@ALIAS`. `best`
    has the highest validation accuracy of the finished runs and trials, pruned ones excepted, with the same data and
    validation images as the newest one. If there are finished runs of data sets with different names, it is an error to
    leave DATASET out.
    experiment: the name of the experiment to look in; for `best` by default that of the newest run.
    among: RUNS; or RESUMABLE or SWEEPS, which have no best and no models.
    Raises TrackingError, with the nearest runs, if no run or several runs match.
    """
    return find(store, wanted, experiment, among).run


def is_chosen(wanted: str) -> bool:
    """Whether a rule chooses the run that a user calls so, and not the user."""
    return wanted in ("latest", "best") or wanted.startswith(("best:", "models:/"))


def find(store: Store, wanted: str, experiment: str | None = None, among: str = RUNS) -> Found:
    """Finds one run, as `find_run` does, and says why it is this one."""
    with store_errors(store.uri):
        if among == RUNS and wanted.startswith("models:/"):
            return Found(find_registered(store, wanted), f"found as {wanted}")
        inside = experiment_ids(store, experiment)
        if among == RUNS and (wanted == "best" or wanted.startswith("best:")):
            if best := _find_best(store, inside, wanted.partition(":")[2]):
                return best
            runs = []
        elif wanted == "latest":
            runs = _search(store, among, inside, most=1)
        else:
            runs = _search_named(store, wanted, inside, among)
        if len(runs) == 1:
            named = "found by its name" if wanted == runs[0].name else "found by its id"
            return Found(runs[0], "the newest run" if wanted == "latest" else named)
        shown = runs or _search(store, among, inside, most=5)
    kind = "sweep" if among == SWEEPS else "run"
    listed = ", ".join(run.label for run in shown[:5])
    if runs:
        raise TrackingError(Problem(f"{kind} {wanted!r}", f"is ambiguous: {listed}", remedy="give an id"))
    if not listed:
        command = "python -m mnist_exp -m ..." if among == SWEEPS else "python -m mnist_exp"
        raise TrackingError(Problem("the store", f"has no {kind} yet", remedy=f"start one with: {command}"))
    words = ", a name, latest, best, best:DATASET or models:/NAME@ALIAS" if among == RUNS else ", a name or latest"
    raise TrackingError(Problem(f"the {kind}", f"must be an id{words}", wanted, f"the newest are: {listed}"))


def find_finished(store: Store, wanted: str, experiment: str | None = None) -> Found:
    """Finds a finished run, as `find_run` does, and says why it is this one. `latest` is the newest finished run.

    Raises TrackingError if the run did not finish: it has no model.
    """
    found = find(store, wanted, experiment)
    if wanted == "latest":
        return _find_latest_finished(store, experiment, found.run)
    _check_finished(found.run)
    return found


def _find_latest_finished(store: Store, experiment: str | None, newest: StoredRun) -> Found:
    if newest.is_finished:
        return Found(newest, "the newest finished run")
    with store_errors(store.uri):
        finished = _search(store, f"{RUNS} and {FINISHED}", experiment_ids(store, experiment), most=1)
    if not finished:
        _check_finished(newest)
    return Found(finished[0], f"the newest finished run; {newest.label} is newer and {newest.status}")


def _check_finished(run: StoredRun) -> None:
    if not run.is_finished:
        remedy = "choose a finished run; list them with: python -m mnist_exp compare"
        raise TrackingError(Problem(run.label, "must be FINISHED", run.status, remedy))


def search_runs(
    store: Store, objective: Objective, where: Mapping[str, Any], most: int, experiment: str | None = None,
    without: Sequence[tuple[str, str]] = (),
) -> list[StoredRun]:  # fmt: skip
    """Returns the finished runs and trials with these parameters, the best first, `most` at the most. None was pruned.

    where: parameters and values, as the config has them or as text. without: parameters and values; runs that lack one
    of the parameters or have one of the values are left out.
    """
    conditions = [RANKED, *(has_param(key, value) for key, value in where.items())]
    conditions += [f"params.`{key}` != {_quote(value)}" for key, value in without]
    order = f"metrics.`{objective.metric}` {'ASC' if objective.direction == 'min' else 'DESC'}"
    with store_errors(store.uri):
        store.analyze()
        return _search(store, " and ".join(conditions), experiment_ids(store, experiment), most, order)


def has_param(key: str, value: Any) -> str:
    """Returns the condition in MLflow's search language that a parameter has a value, which was logged as its text."""
    return f"params.`{key}` = {_quote(str(value))}"


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
    runs = _search(store, f"attributes.run_name = {_quote(wanted)} and {among}", inside, most=6)
    if not runs and len(wanted) >= SHORTEST:
        for id_of in ("attributes.run_id", f"tags.{tags.COPIED_FROM}"):  # its own, or that of the run it is a copy of
            runs = runs or _search(store, f"{id_of} LIKE {_quote(wanted, '%')} and {among}", inside, most=6)
    return runs


def _quote(text: str, more: str = "") -> str:
    """Returns the text as MLflow's search language reads it. more: follows the text within the quotes."""
    quote = '"' if "'" in text else "'"
    return f"{quote}{text.replace(quote, '')}{more}{quote}"  # the language has no way to write both


def _find_best(store: Store, inside: list[str], dataset: str) -> Found | None:
    """Finds the best run on the data of the newest finished run. Returns None if no run has finished.

    dataset: the name of the data set. If it is empty, all finished runs must have data sets of the same name.
    """
    store.analyze()
    finished = RANKED
    names = _list_datasets(store, finished, inside)
    if dataset:
        finished = f"{finished} and {has_param(DATASET, dataset)}"
        if names and dataset not in names:
            remedy = f"choose one of {', '.join(f'best:{name}' for name in names)}"
            raise TrackingError(Problem(f"best:{dataset}", "has no finished run", remedy=remedy))
    elif len(names) > 1:
        counts = [_count(_search_some(store, f"{finished} and {has_param(DATASET, name)}", inside)) for name in names]
        listed = ", ".join(f"{name} ({count})" for name, count in zip(names, counts, strict=True))
        remedy = f"give the data set, such as best:{names[0]}"
        raise TrackingError(Problem("best", f"is ambiguous: there are finished runs on {listed}", remedy=remedy))
    candidates = _search_some(store, finished, inside)
    if not candidates:
        return None
    newest = candidates[0]
    same_data = [has_param(key, newest.params[key]) for key in DIGESTS if key in newest.params]
    condition = " and ".join([finished, *same_data])
    ranked = _search_some(store, condition, [newest.experiment_id], "metrics.`val/accuracy` DESC")
    reason = f"best of {_count(ranked, 'finished run')} on the same images"
    if (others := len(candidates) - len(ranked)) > 0:
        more = "at least " * (len(candidates) > MOST_COUNTED)
        reason += f"; {more}{others} on other images or in another experiment were not considered"
    return Found(ranked[0], reason)


def _list_datasets(store: Store, condition: str, inside: list[str]) -> list[str]:
    """Returns the names of the data sets of the runs that meet a condition, the one of the newest run first."""
    names: list[str] = []
    while len(names) < MOST_DATASETS and (newest := _search(store, condition, inside, most=1)):
        if DATASET not in newest[0].params:
            break
        names.append(newest[0].params[DATASET])
        condition += f" and params.`{DATASET}` != {_quote(names[-1])}"
    return names


def _search_some(store: Store, condition: str, inside: list[str], order: str = NEWEST) -> list[StoredRun]:
    return _search(store, condition, inside, MOST_COUNTED + 1, order)


def _count(runs: list[StoredRun], noun: str = "run") -> str:
    if len(runs) > MOST_COUNTED:
        return f"more than {MOST_COUNTED} {noun}s"
    return f"{len(runs)} {noun}{'s' * (len(runs) != 1)}"
