"""Sends the artifacts of a run or of a logged model to another store, and compares what arrived."""

import filecmp
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from mlflow.artifacts import download_artifacts
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.tracking.store import Store


class Folder:
    """The artifacts below a URI of a store, without the file that MLflow adds whenever it loads a registered model."""

    def __init__(self, store: Store, uri: str) -> None:
        self.uri, self._store = uri, store

    def sizes(self) -> dict[str, int]:
        """Returns the size in bytes of each file, by its path below the URI."""
        if is_local_uri(self.uri):
            return {path: file.stat().st_size for path, file in self._local().items()}
        repository = get_artifact_repository(self.uri, self._store.uri)
        found, folders = {}, [""]
        while folders:
            for one in repository.list_artifacts(folders.pop() or None):
                if one.is_dir:
                    folders.append(one.path)
                elif one.path != REGISTERED_MODEL_META_FILE_NAME:
                    found[one.path] = int(one.file_size or 0)
        return found

    def stamps(self) -> list[tuple[str, int, int]]:
        """Returns path, size and, of local files, time of change in nanoseconds."""
        if is_local_uri(self.uri):
            states = ((path, file.stat()) for path, file in self._local().items())
            return sorted((path, state.st_size, state.st_mtime_ns) for path, state in states)
        return sorted((path, size, 0) for path, size in self.sizes().items())

    def fetch(self, paths: Iterable[str], to: Path) -> None:
        """Copies these files to a local folder."""
        for path in paths:
            (to / path).parent.mkdir(parents=True, exist_ok=True)
            parent = str((to / path).parent)
            download_artifacts(f"{self.uri.rstrip('/')}/{path}", dst_path=parent, tracking_uri=self._store.uri)

    def _local(self) -> dict[str, Path]:
        root = Path(local_file_uri_to_path(self.uri))
        files = (path for path in root.rglob("*") if path.is_file())
        named = {path.relative_to(root).as_posix(): path for path in files}
        named.pop(REGISTERED_MODEL_META_FILE_NAME, None)
        return named


def send_files(
    ours: Folder,
    theirs: Folder,
    send: Callable[[str, str | None], None],
    name: str,
    *,
    thorough: bool,
    change: Mapping[str, Callable[[Path], None]] | None = None,
) -> int:
    """Sends the files that are missing or differ in size, and returns their number.

    send: sends a local file into a folder of `theirs`. change: edits the copy of a file before it is compared or sent.
    thorough: files of equal size are compared byte by byte, too. Raises TrackingError if one did not arrive.
    """
    change = change or {}
    sizes, there = ours.sizes(), theirs.sizes()
    suspects = [path for path in sizes if thorough or (there.get(path) != sizes[path] and path not in change)]
    suspects += [path for path in change if path in sizes and path not in there and path not in suspects]
    if not suspects:
        return 0
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        local, arrived = Path(folder), Path(other)
        ours.fetch(suspects, local)
        for path in change.keys() & set(suspects):
            change[path](local / path)
        theirs.fetch([path for path in suspects if path in there], arrived)
        missing = _find_differing(local, arrived, suspects)
        for path in missing:
            parent = str(PurePosixPath(path).parent)
            send(str(local / path), None if parent == "." else parent)
        theirs.fetch(set(missing) & theirs.sizes().keys(), arrived)
        if lost := _find_differing(local, arrived, missing):
            rule = f"has files that did not arrive as sent: {', '.join(sorted(lost)[:5])}"
            raise TrackingError(Problem(name, rule, remedy="copy again"))
    return len(missing)


def _find_differing(one: Path, other: Path, paths: Iterable[str]) -> list[str]:
    filecmp.clear_cache()
    _, differing, unreadable = filecmp.cmpfiles(one, other, list(paths), shallow=False)
    return [*differing, *unreadable]
