"""Copies a store to another and keeps the copy up to date: experiments, runs, artifacts, logged and registered models.

The tag `copied_from` holds the id in the first store, however often a run or model was copied since, so each is
recognised everywhere and copied once. A copy that was interrupted is finished by the next one: `copied_whole` and
`copied_state` are set last.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlflow.entities import (
    Experiment,
    LoggedModel,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.tracking import tags
from mnist_exp.tracking.artifact_files import Folder, send_files
from mnist_exp.tracking.copy_registered import RegisteredCopy, own_tags
from mnist_exp.tracking.find import iterate_pages
from mnist_exp.tracking.registry import DESCRIPTION, find_model
from mnist_exp.tracking.sqlite import count_points
from mnist_exp.tracking.store import Store, local_database, point_mlflow_at, store_errors

FORMAT = 1  # of `copied_state`; raise it if a copy holds more than before, so that every run is compared again
ID = re.compile(r"\b(?:m-)?[0-9a-f]{32}\b")  # of a run or of a logged model
COPIES = f"tags.{tags.COPIED_FROM} != ''"
RUNNING, DELETED = "RUNNING", "deleted"


@dataclass
class CopySummary:
    """What was copied, new or changed. before: runs that were copied earlier and are unchanged.

    left: one sentence for each thing that the other store could not take.
    """

    runs: int = 0
    before: int = 0
    metrics: int = 0
    files: int = 0
    models: int = 0
    versions: int = 0
    left: list[str] = field(default_factory=list)


@dataclass
class Known:
    """A run in the second store. original: it is no copy, so it is not changed. progress: see `_progress`."""

    id: str
    original: bool
    state: str = ""
    progress: str = ""
    deleted: bool = False
    whole: bool = False


def copy_store(source: Store, target: Store, report: Callable[[str], None] = lambda label: None) -> CopySummary:
    """Makes the second store hold what the first one holds. Raises TrackingError if something did not arrive.

    report: called with the label of each run that is copied or brought up to date.
    """
    with store_errors(target.uri):
        return _Copy(source, target, report).run()


class _Copy:
    def __init__(self, source: Store, target: Store, report: Callable[[str], None]) -> None:
        self.source, self.target, self.report = source, target, report
        self.summary = CopySummary()
        self.experiments: dict[str, str] = {}  # ids, from the first store to the second
        self.ids: dict[str, str] = {}  # of runs and logged models
        self.known_models: dict[str, LoggedModel] = {}  # in the second store, by origin

    def run(self) -> CopySummary:
        experiments = list(iterate_pages(self.source.client.search_experiments))
        inside = [experiment.experiment_id for experiment in experiments]
        # Oldest first: a run that starts meanwhile is on the last page and moves no other one.
        search = partial(self.source.client.search_runs, run_view_type=ViewType.ALL)
        order = ["attributes.start_time ASC"]
        self.runs = {run.info.run_id: run for run in iterate_pages(partial(search, inside, "", order_by=order))}
        self.by_origin = {_origin(run.data.tags, run.info.run_id): run for run in self.runs.values()}
        self.models = {model.model_id: model for model in _search_models(self.source, inside)}
        self.models_of: dict[str | None, list[LoggedModel]] = defaultdict(list)
        self.points_of_models: dict[str | None, list[tuple[LoggedModel, Metric]]] = defaultdict(list)
        for model in self.models.values():
            self.models_of[model.source_run_id].append(model)
            for point in model.metrics or []:
                self.points_of_models[point.run_id].append((model, point))
        database = local_database(self.source.uri)
        self.counts = count_points(database) if database else {}
        self._find_copies()
        for experiment in experiments:
            self._copy_experiment(experiment)
        for run in self.runs.values():
            self._copy_run(run)
        for model in self.models.values():
            if model.source_run_id not in self.runs:
                self._copy_model(model, thorough=False)
        copier = RegisteredCopy(self.source, self.target, self.models, self._translate)
        for registered in iterate_pages(self.source.client.search_registered_models):
            copier.copy(registered)
        self.summary.versions, self.summary.left = copier.created, self.summary.left + copier.left
        return self.summary

    def _find_copies(self) -> None:
        """Finds the runs and models in the second store that are copies. Of two with one origin the better one."""
        inside = [one.experiment_id for one in iterate_pages(self.target.client.search_experiments)]
        found: dict[str, list[tuple[tuple[bool, bool, int], Known]]] = defaultdict(list)
        search = partial(self.target.client.search_runs, inside, COPIES, run_view_type=ViewType.ALL)
        for run in iterate_pages(search):
            known = _to_known(run)
            quality = known.deleted, not known.whole, run.info.start_time
            found[run.data.tags[tags.COPIED_FROM]].append((quality, known))
        self.known: dict[str, Known] = {}
        for origin, several in found.items():
            several.sort(key=lambda pair: pair[0])
            self.known[origin] = several[0][1]
            for _, other in several[1:]:
                if not other.deleted and not other.whole:  # a request that a server got twice
                    self.target.client.delete_run(other.id)
        for model in _search_models(self.target, inside, COPIES):
            self.known_models[model.tags[tags.COPIED_FROM]] = model

    def _copy_experiment(self, experiment: Experiment) -> None:
        """Creates the experiment with its tags. One that is not a copy only gets the tags that it lacks."""
        mark = {tags.COPIED_FROM: experiment.tags.get(tags.COPIED_FROM, experiment.experiment_id)}
        new = {**experiment.tags, **mark}
        copy_id = self.target.experiment_id(experiment.name, new)
        self.experiments[experiment.experiment_id] = copy_id
        theirs = self.target.client.get_experiment(copy_id).tags
        is_copy = tags.COPIED_FROM in theirs
        for key, value in experiment.tags.items():
            if key not in theirs or (is_copy and theirs[key] != value):
                self.target.client.set_experiment_tag(copy_id, key, value)
        for key in theirs.keys() - new.keys() if is_copy else ():
            self.target.client.delete_experiment_tag(copy_id, key)

    def _create(self, run: Run) -> Known:
        """Returns the run in the second store; creates it, empty, if there is none."""
        origin = _origin(run.data.tags, run.info.run_id)
        if origin not in self.known:
            try:
                self.known[origin] = _to_known(self.target.client.get_run(origin), original=True)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                experiment = self.experiments[run.info.experiment_id]
                mark = {tags.COPIED_FROM: origin}
                new = self.target.client.create_run(experiment, run.info.start_time, mark, run.info.run_name)
                self.known[origin] = Known(new.info.run_id, original=False)
        known = self.known[origin]
        self.ids[run.info.run_id] = known.id
        return known

    def _translate(self, text: str) -> str:
        """Replaces the ids of runs and models of the first store by those of their copies. Any tag may hold some."""
        return ID.sub(lambda found: self._copy_id(found[0]), text)

    def _copy_id(self, wanted: str) -> str:
        if wanted not in self.ids:
            if wanted in self.models:
                self._create_model(self.models[wanted])
            elif wanted.startswith("m-"):
                return wanted
            elif run := self.runs.get(wanted) or self.by_origin.get(wanted) or self._new_run(wanted):
                self.ids[wanted] = self._create(run).id
            else:
                return wanted
        return self.ids[wanted]

    def _new_run(self, run_id: str) -> Run | None:
        """Returns a run that began after the copy did: the newest tags of its sweep may name it."""
        try:
            run = self.source.client.get_run(run_id)
        except MlflowException:
            return None
        return run if run.info.experiment_id in self.experiments else None

    def _copy_run(self, run: Run) -> None:
        known, info = self._create(run), run.info
        state = self._state(run)
        unchanged = known.progress == _progress(run)
        if not known.original and known.state == state:
            if unchanged:
                self._send_files(run, known.id, thorough=False)  # an artifact may have been truncated since
            if info.lifecycle_stage == DELETED and not known.deleted:
                self.target.client.delete_run(known.id)
            self.summary.before += 1
        elif (known.original and unchanged) or self._has_gone_on(run, known):
            self.summary.before += 1
        else:
            self.report(f"{info.run_name} ({info.run_id[:8]})")
            self._mirror_run(run, known, state)
            self.summary.runs += 1

    def _has_gone_on(self, run: Run, known: Known) -> bool:
        """Whether the second store holds more of this run than the first, so that it must not be changed.

        Notes it if the first store has gone on, too.
        """
        theirs = self.target.client.get_run(known.id)
        our_points, their_points = (set(points) for points in (_points(self.source, run), _points(self.target, theirs)))
        our_params, their_params = set(self._params(run).items()), set(theirs.data.params.items())
        is_resumed = theirs.info.status == RUNNING and tags.COPIED_WHOLE in theirs.data.tags
        if not (known.original or is_resumed or their_points - our_points or their_params - our_params):
            return False
        if our_points - their_points or our_params - their_params:
            rule = "has gone on in both stores; the other store keeps its own"
            self.summary.left.append(f"{run.info.run_name} ({run.info.run_id[:8]}) {rule}")
        return True

    def _mirror_run(self, run: Run, known: Known, state: str) -> None:
        client, info, copy = self.target.client, run.info, known.id
        if known.deleted:
            client.restore_run(copy)
        before = client.get_run(copy)
        for key in (tags.COPIED_WHOLE, tags.COPIED_STATE):  # nobody takes the copy for a run of its own meanwhile
            if key in before.data.tags:
                client.delete_tag(copy, key)
        points = _points(self.source, run)
        there = set(_points(self.target, before))
        new = [point for key, point in points.items() if key not in there]
        params = [Param(key, value) for key, value in self._params(run).items() if key not in before.data.params]
        client.log_batch(copy, new, params)  # in as many calls as the server needs
        if run.inputs.dataset_inputs:
            client.log_inputs(copy, run.inputs.dataset_inputs)
        self._copy_models_of(run, before)
        self._set_run_tags(run, before)
        self._send_files(run, copy, thorough=True)
        self._check_values(run, copy, points)
        if info.run_name != client.get_run(copy).info.run_name:
            client.update_run(copy, name=info.run_name)
        if info.end_time:
            client.set_terminated(copy, info.status, info.end_time)
        else:
            client.update_run(copy, status=info.status)
        # As long as the run lives in the first store, its copy is not whole: no process of this store owns it.
        whole = [] if info.status == RUNNING else [RunTag(tags.COPIED_WHOLE, "true")]
        client.log_batch(copy, tags=[*whole, RunTag(tags.COPIED_STATE, state)])
        if info.lifecycle_stage == DELETED:
            client.delete_run(copy)
        self.summary.metrics += len(new)

    def _params(self, run: Run) -> dict[str, str]:
        """Returns the parameters of the copy. Those of a sweep name the runs that the test set was opened for."""
        return {key: self._translate(value) for key, value in run.data.params.items()}

    def _set_run_tags(self, run: Run, before: Run) -> None:
        wanted = {self._translate(key): self._translate(value) for key, value in own_tags(run.data.tags).items()}
        theirs = own_tags(before.data.tags)
        changed = [RunTag(key, value) for key, value in wanted.items() if theirs.get(key) != value]
        self.target.client.log_batch(before.info.run_id, tags=changed)
        for key in theirs.keys() - wanted.keys():
            self.target.client.delete_tag(before.info.run_id, key)

    def _check_values(self, run: Run, copy: str, points: Mapping[tuple, Metric]) -> None:
        arrived = self.target.client.get_run(copy)
        missing = points.keys() - _points(self.target, arrived).keys()
        if missing or arrived.data.params != self._params(run):
            rule = f"has {len(points)} metrics, of which {len(points) - len(missing)} arrived"
            raise TrackingError(Problem(str(run.info.run_name), rule, remedy="copy again"))

    def _copy_models_of(self, run: Run, before: Run) -> None:
        """Copies the models that a run made, and links those that it made or used, with their metrics."""
        outputs = run.outputs.model_outputs if run.outputs else []
        theirs = before.outputs.model_outputs if before.outputs else []
        self._mark_old_copies(outputs, theirs)
        for model in self.models_of[run.info.run_id]:
            self._copy_model(model, thorough=True)
        copy = before.info.run_id
        linked = {output.model_id for output in theirs}
        new = [
            LoggedModelOutput(self._copy_id(one.model_id), one.step) for one in outputs if one.model_id in self.models
        ]
        if new := [output for output in new if output.model_id not in linked]:
            self.target.client.log_outputs(copy, new)
        used = [self._copy_id(one.model_id) for one in run.inputs.model_inputs if one.model_id in self.models]
        if new_inputs := set(used) - {one.model_id for one in before.inputs.model_inputs}:
            self.target.client.log_inputs(copy, models=[LoggedModelInput(one) for one in sorted(new_inputs)])
        self._copy_model_points(run, copy)
        ours = {_origin(model.tags, model.model_id) for model in self.models_of[run.info.run_id]}
        for origin, model in self.known_models.items():
            if model.source_run_id == copy and origin not in ours:
                self.target.client.delete_logged_model(model.model_id)

    def _mark_old_copies(self, ours: list[LoggedModelOutput], theirs: list[LoggedModelOutput]) -> None:
        """Marks the models of a run that an earlier version copied, in the order of the run's models."""
        marked = {model.model_id for model in self.known_models.values()}
        for our, their in zip(ours, theirs, strict=False):
            if their.model_id not in marked and our.model_id in self.models:
                model = self.models[our.model_id]
                origin = _origin(model.tags, model.model_id)
                self.target.client.set_logged_model_tags(their.model_id, {tags.COPIED_FROM: origin})
                self.known_models[origin] = self.target.client.get_logged_model(their.model_id)

    def _copy_model_points(self, run: Run, copy: str) -> None:
        nan = {(key, stamp, step) for key, stamp, step, value in _points(self.source, run) if value == "nan"}
        for model, point in self.points_of_models[run.info.run_id]:
            copied = self.target.client.get_logged_model(self._copy_id(model.model_id))
            place = (point.key, point.timestamp, point.step)
            if place in {(one.key, one.timestamp, one.step) for one in copied.metrics or []}:
                continue
            value = float("nan") if place in nan else point.value  # MLflow keeps nan as 0 for models
            data = {"dataset_name": point.dataset_name, "dataset_digest": point.dataset_digest}
            again = Metric(point.key, value, point.timestamp, point.step, copied.model_id, **data)
            self.target.client.log_batch(copy, [again])

    def _create_model(self, model: LoggedModel) -> LoggedModel:
        """Returns the model in the second store; creates it, without files, if there is none."""
        origin = _origin(model.tags, model.model_id)
        if origin not in self.known_models:
            found = find_model(self.target, origin)
            self.known_models[origin] = found or self.target.client.create_logged_model(
                self.experiments[model.experiment_id],
                model.name,
                self._copy_id(model.source_run_id) if model.source_run_id else None,
                {**self._model_tags(model), tags.COPIED_FROM: origin},
                dict(model.params or {}),
                model.model_type,
            )
        self.ids[model.model_id] = self.known_models[origin].model_id
        return self.known_models[origin]

    def _model_tags(self, model: LoggedModel) -> dict[str, str]:
        return {self._translate(key): self._translate(value) for key, value in own_tags(model.tags).items()}

    def _copy_model(self, model: LoggedModel, *, thorough: bool) -> None:
        copy = self._create_model(model)
        if tags.COPIED_FROM not in copy.tags:  # the original
            return
        wanted, theirs = self._model_tags(model), own_tags(copy.tags)
        if changed := {key: value for key, value in wanted.items() if theirs.get(key) != value}:
            self.target.client.set_logged_model_tags(copy.model_id, changed)
        for key in theirs.keys() - wanted.keys():
            self.target.client.delete_logged_model_tag(copy.model_id, key)
        self._send_model_files(model, copy, thorough=thorough)
        if copy.status != model.status and model.status != LoggedModelStatus.PENDING:
            point_mlflow_at(self.target.uri)
            self.target.client.finalize_logged_model(copy.model_id, model.status)
            self.summary.models += 1

    def _send_files(self, run: Run, copy: str, *, thorough: bool) -> None:
        """Sends the files of a run, and without `thorough` also those of its models, that are missing or differ."""
        there = self.target.client.get_run(copy).info.artifact_uri
        send = partial(self.target.client.log_artifact, copy)
        ours, theirs = Folder(self.source, run.info.artifact_uri), Folder(self.target, there)
        self.summary.files += send_files(ours, theirs, send, str(run.info.run_name), thorough=thorough)
        for model in [] if thorough else self.models_of[run.info.run_id]:
            self._send_model_files(model, self._create_model(model), thorough=False)

    def _send_model_files(self, model: LoggedModel, copy: LoggedModel, *, thorough: bool) -> None:
        """Sends the files of a model. The ids of run and model in its description become those of the copies."""

        def describe(file: Path) -> None:
            description = Model.load(str(file))
            description.run_id, description.model_id = copy.source_run_id, copy.model_id
            description.artifact_path = copy.artifact_location
            description.save(str(file))

        send = partial(self.target.client.log_model_artifact, copy.model_id)
        ours, theirs = Folder(self.source, model.artifact_location), Folder(self.target, copy.artifact_location)
        self.summary.files += send_files(
            ours, theirs, send, model.name, thorough=thorough, change={DESCRIPTION: describe}
        )

    def _state(self, run: Run) -> str:
        """A digest of everything that a copy of this run is made from."""
        models = sorted(self.models_of[run.info.run_id], key=lambda model: str(model.model_id))
        points = sorted(_to_tuple(point) for _, point in self.points_of_models[run.info.run_id])
        content = [
            FORMAT,
            _progress(run),
            run.info.run_name,
            run.info.lifecycle_stage,
            run.info.end_time,
            self.counts.get(run.info.run_id),
            sorted(own_tags(run.data.tags).items()),
            sorted(given.dataset.digest for given in run.inputs.dataset_inputs),
            sorted(one.model_id for one in run.inputs.model_inputs),
            sorted((one.model_id, one.step) for one in (run.outputs.model_outputs if run.outputs else [])),
            Folder(self.source, run.info.artifact_uri).stamps(),
            [(m.model_id, str(m.status), sorted(own_tags(m.tags).items())) for m in models],
            [Folder(self.source, model.artifact_location).stamps() for model in models],
            points,
        ]
        return _digest(content)


def _to_known(run: Run, *, original: bool = False) -> Known:
    values, is_deleted = run.data.tags, run.info.lifecycle_stage == DELETED
    state = values.get(tags.COPIED_STATE, "")
    return Known(run.info.run_id, original, state, _progress(run), is_deleted, tags.COPIED_WHOLE in values)


def _origin(values: Mapping[str, str], own_id: str) -> str:
    """The id of a run or model in the store in which it was first written."""
    return values.get(tags.COPIED_FROM, own_id)


def _progress(run: Run) -> str:
    """A digest of what a process has logged. Equal in a run and its copy, as long as neither goes on."""
    return _digest([run.info.status, sorted(run.data.params.items()), sorted(run.data.metrics.items())])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _to_tuple(point: Metric) -> tuple[str, int, int, str]:
    return point.key, point.timestamp, point.step, repr(point.value)  # nan is not equal to itself


def _points(store: Store, run: Run) -> dict[tuple, Metric]:
    """All metrics of a run, with every step."""
    histories = (store.client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
    return {_to_tuple(point): point for history in histories for point in history}


def _search_models(store: Store, inside: list[str], condition: str | None = None) -> Iterator[LoggedModel]:
    if inside:
        yield from iterate_pages(partial(store.client.search_logged_models, inside, condition))
