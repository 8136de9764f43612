"""Copies registered models to another store: versions with their numbers, aliases, tags and descriptions."""

from collections.abc import Callable, Mapping
from functools import partial

from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from mnist_exp.tracking import tags
from mnist_exp.tracking.registry import find_registered_model, list_versions
from mnist_exp.tracking.store import Store, point_mlflow_at

LOGGED = "models:/m-"  # how the source of a version begins that is a logged model


class RegisteredCopy:
    """Copies registered models, after the runs and logged models.

    models: the logged models of the first store by id. translate: replaces ids of the first store in a text.
    created: the number of versions. left: one sentence for each thing that the other store could not take.
    """

    def __init__(
        self, source: Store, target: Store, models: Mapping[str, LoggedModel], translate: Callable[[str], str]
    ) -> None:
        self.source, self.target, self.models, self._translate = source, target, models, translate
        self.origins = {model.tags.get(tags.COPIED_FROM, id_) for id_, model in models.items()}
        self.created = 0
        self.left: list[str] = []

    def copy(self, ours: RegisteredModel) -> None:
        """Copies a registered model. One that is not a copy keeps its own description and tags."""
        client, name = self.target.client, ours.name
        theirs = find_registered_model(self.target, name)
        if theirs is None:
            mark = {tags.COPIED_FROM: ours.tags.get(tags.COPIED_FROM, name)}
            theirs = client.create_registered_model(name, {**ours.tags, **mark}, ours.description)
        is_copy = tags.COPIED_FROM in theirs.tags
        if is_copy:
            set_tag, delete_tag = client.set_registered_model_tag, client.delete_registered_model_tag
            _mirror(own_tags(ours.tags), own_tags(theirs.tags), partial(set_tag, name), partial(delete_tag, name))
            if (ours.description or "") != (theirs.description or ""):
                client.update_registered_model(name, ours.description or "")
        self._copy_aliases(ours, theirs, self._copy_versions(name))

    def _copy_aliases(self, ours: RegisteredModel, theirs: RegisteredModel, numbers: Mapping[str, str]) -> None:
        """numbers: of the versions, from the first store to the second."""
        name, copied = ours.name, set(numbers.values())
        own = {str(version.version) for version in list_versions(self.target, name)} - copied
        for alias, number in ours.aliases.items():
            wanted, now = numbers.get(str(number)), str(theirs.aliases.get(alias))
            if now in own:
                self.left.append(f"models:/{name}@{alias} stays version {now}, which is the other store's own")
            elif wanted not in (None, now):
                self.target.client.set_registered_model_alias(name, alias, wanted)
        for alias, number in theirs.aliases.items():
            if tags.COPIED_FROM in theirs.tags and alias not in ours.aliases and str(number) in copied:
                self.target.client.delete_registered_model_alias(name, alias)

    def _copy_versions(self, name: str) -> dict[str, str]:
        """Copies the versions and returns their numbers, from the first store to the second."""
        there = list_versions(self.target, name)
        known = {one.tags[tags.COPIED_FROM]: one for one in there if tags.COPIED_FROM in one.tags}
        unmarked = [one for one in there if tags.COPIED_FROM not in one.tags]
        highest = max((int(one.version) for one in there), default=0)
        numbers: dict[str, str] = {}
        for version in list_versions(self.source, name):
            source = self._source_of(version)
            if source is None:
                rule = "has no logged model in the first store, so it is not copied"
                self.left.append(f"models:/{name}/{version.version} {rule}")
                continue
            identity = self._identity(version)
            copy = known.pop(identity, None)
            if copy and int(copy.version) < int(version.version) > highest:  # it was to fill a gap, at a kill
                self.target.client.delete_model_version(name, copy.version)
                copy = None
            if copy:
                self._update(version, copy)
            else:
                copy = self._find_unmarked(version, identity, source, unmarked)
                copy = copy or self._create(version, identity, source)
            highest = max(highest, int(copy.version))
            numbers[str(version.version)] = str(copy.version)
            if int(copy.version) != int(version.version):
                rule = f"is version {copy.version} in the other store, where the number is taken"
                self.left.append(f"models:/{name}/{version.version} {rule}")
        for identity, copy in known.items():
            if identity.rpartition("/")[0] in self.origins:  # deleted in the first store
                self.target.client.delete_model_version(name, copy.version)
        return numbers

    def _identity(self, version: ModelVersion) -> str:
        """What a version and its copies have in common: the origin of its model, and its first number."""
        model = self.models.get(str(_model_id(version.source)))
        origin = model.tags.get(tags.COPIED_FROM, model.model_id) if model else version.source
        return str(version.tags.get(tags.COPIED_FROM, f"{origin}/{version.version}"))

    def _source_of(self, version: ModelVersion) -> str | None:
        """The source of the copy. Files that belong to no run and to no logged model are not in the other store."""
        is_known = _model_id(version.source) in self.models or str(version.source).startswith("runs:/")
        return self._translate(version.source) if is_known else None

    def _find_unmarked(
        self, version: ModelVersion, identity: str, source: str, unmarked: list[ModelVersion]
    ) -> ModelVersion | None:
        """Finds the original of a version, or a copy by an earlier version of this package, which is marked now."""
        for other in unmarked:
            if other.source == source:
                unmarked.remove(other)
                if tags.COPIED_FROM not in version.tags:
                    self.target.client.set_model_version_tag(other.name, other.version, tags.COPIED_FROM, identity)
                return other
        return None

    def _tags_of(self, version: ModelVersion) -> dict[str, str]:
        return {self._translate(key): self._translate(value) for key, value in own_tags(version.tags).items()}

    def _update(self, version: ModelVersion, copy: ModelVersion) -> None:
        client, place = self.target.client, (copy.name, copy.version)
        set_tag, delete_tag = client.set_model_version_tag, client.delete_model_version_tag
        _mirror(self._tags_of(version), own_tags(copy.tags), partial(set_tag, *place), partial(delete_tag, *place))
        if (copy.description or "") != (version.description or ""):
            client.update_model_version(*place, version.description or "")

    def _create(self, version: ModelVersion, identity: str, source: str) -> ModelVersion:
        """Creates a version. MLflow counts up, so versions that are created and deleted fill the gap before it."""
        point_mlflow_at(self.target.uri)  # MLflow looks for the model there
        run_id = self._translate(version.run_id) if version.run_id else None
        values, text = {**self._tags_of(version), tags.COPIED_FROM: identity}, version.description
        create = partial(self.target.client.create_model_version, version.name, source, run_id, values)
        copy = create(description=text, model_id=_model_id(source))
        while int(copy.version) < int(version.version):
            self.target.client.delete_model_version(version.name, copy.version)
            copy = create(description=text, model_id=_model_id(source))
        self.created += 1
        return copy


def own_tags(values: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags without those that a copy sets."""
    return {key: value for key, value in values.items() if key not in tags.OF_COPIES}


def _mirror(
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
    set_tag: Callable[[str, str], None],
    delete_tag: Callable[[str], None],
) -> None:
    for key, value in ours.items():
        if theirs.get(key) != value:
            set_tag(key, value)
    for key in theirs.keys() - ours.keys():
        delete_tag(key)


def _model_id(source: str) -> str | None:
    return source.removeprefix("models:/") if source.startswith(LOGGED) else None
