"""The record of a run as a folder on disk: what it logged, its artifacts, checkpoints and log."""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from mnist_exp.errors import TrackingError

if TYPE_CHECKING:
    import keras

Status = Literal["FINISHED", "FAILED", "KILLED"]
STATE = Path("checkpoints", "state.json")  # written by callbacks.Checkpoint
SPACE_NEEDED = 200 * 2**20  # bytes: checkpoints, figures and the saved model of a large net


@dataclass(frozen=True)
class Input:
    """The data set a run was given; digest: SHA-256 in hex."""

    name: str
    digest: str
    source: str
    profile: Mapping[str, Any]


class Record:
    """What a run leaves, kept in one folder while it lasts. This plain one is dropped at the end (`tracking=off`)."""

    id: str | None = None
    uri: str | None = None
    digest: str | None = None  # of the data set a resumed run began with

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.artifacts, self.checkpoints, self.log = folder / "artifacts", folder / "checkpoints", folder / "run.log"
        self.artifacts.mkdir(exist_ok=True)

    @classmethod
    def create(cls, root: Path, name: str) -> Self:
        """A record in a new folder below root/running. Raises TrackingError where that cannot be written."""
        return cls(new_folder(root, name), name)

    def params(self, values: Mapping[str, Any]) -> None:
        """Records the config, once."""
        self._write("params", values)

    def tags(self, values: Mapping[str, str]) -> None:
        """Records facts about the run, some of them later than others."""
        self._write("tags", values)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Records metrics of an epoch (from 1)."""
        self._write("metrics", {**values, "step": step})

    def input(self, data: Input) -> None:
        """Records which data set the run was given."""
        self._write("input", vars(data))

    def publish(self) -> None:
        """Sends the artifacts written so far to where they are kept."""

    def model(self, model: "keras.Model", metadata: Mapping[str, Any]) -> "keras.Model":
        """Keeps the trained model, and returns it as loaded again from where it was kept."""
        import keras

        path = self.artifacts / "model.keras"
        model.save(path)
        return keras.models.load_model(path)

    def end(self, status: Status, message: str = "") -> None:
        """Ends the record; the last call."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # other runs are going on
            self.folder.parent.rmdir()

    @property
    def resumable(self) -> bool:
        """Whether an epoch was saved from which the run could go on."""
        return self.id is not None and (self.folder / STATE).is_file()

    @property
    def trouble(self) -> str | None:
        """What the user must know of the tracking, such as where the record lies that could not be sent."""
        return None

    def _write(self, kind: str, values: Mapping[str, Any]) -> None:
        with (self.folder / "record.jsonl").open("a") as lines:
            lines.write(json.dumps({"kind": kind, "time": time.time(), "values": dict(values)}, default=str) + "\n")


def new_folder(root: Path, name: str) -> Path:
    """A new folder below root/running. Raises TrackingError where there is no space or no right to write."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
        if free < SPACE_NEEDED:
            raise TrackingError(
                f"{root}: a run needs {SPACE_NEEDED // 2**20} MB on disk, but {free // 2**20} MB are free; "
                "make room, or choose another disk with tracking.folder=PATH"
            )
        safe = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
        while True:
            with contextlib.suppress(FileExistsError):
                (root / "running").mkdir()
            with contextlib.suppress(FileNotFoundError):  # another run ended and took the empty folder away
                return Path(tempfile.mkdtemp(prefix=f"{safe[:80]}-", dir=root / "running"))
    except OSError as error:
        raise TrackingError(
            f"{root}: the folder of the runs must be writable, but: {error}; choose another with tracking.folder=PATH"
        ) from error


@dataclass
class Clock:
    """Seconds spent in the named parts of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begun
