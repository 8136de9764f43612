"""A run that is being written, in a folder on disk: what it logged, its artifacts, checkpoints and log."""

import contextlib
import json
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.evaluation import history
from mnist_exp.secrets import hide, hide_in_file

if TYPE_CHECKING:
    import keras

Status = Literal["FINISHED", "FAILED", "KILLED"]
Kind = Literal["params", "tags", "metrics", "input", "artifacts", "model", "end"]  # of a line in the record
# In the folder of a run.
RECORD, ARTIFACTS, CHECKPOINTS, MODEL = "record.jsonl", "artifacts", "checkpoints", "model"
RUNNING = "running"  # the folder around those of the runs that are being written
STATE = Path(CHECKPOINTS, history.STATE)
SPACE_NEEDED = 200  # MB: checkpoints, figures and the saved model of a large net


@dataclass(frozen=True)
class Input:
    """The data set of a run. digest: SHA-256 in hex."""

    name: str
    digest: str
    source: str
    profile: Mapping[str, Any]


class Timer:
    """Measures the named parts of a run: `with timer("training"): ...`. seconds: the sum for each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self._begun[part] = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + self.elapsed(part)

    def elapsed(self, part: str) -> float:
        """Returns the seconds since this part began."""
        return time.perf_counter() - self._begun[part]


class ActiveRun:
    """A run that is being written. As a context manager it sets the status by how the block ends.

    This class keeps the run in its folder only and deletes the folder at the end (`tracking=off`).
    digest: that of the data set a resumed run began with, else None.
    timer: the wall time of each part.
    """

    id: str | None = None
    uri: str | None = None
    digest: str | None = None

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.artifacts, self.checkpoints, self.log = folder / ARTIFACTS, folder / CHECKPOINTS, folder / "run.log"
        self.artifacts.mkdir(exist_ok=True)
        self.timer = Timer()

    @classmethod
    def create(cls, root: Path, name: str) -> Self:
        """Creates a run in a new folder below root/running. Raises TrackingError if the folder cannot be written."""
        return cls(new_folder(root, name), name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.end("FINISHED")
        elif isinstance(error, Exception | SystemExit):  # a user's net may end the process
            text = hide("".join(traceback.format_exception(error)))
            (self.artifacts / "traceback.txt").write_text(text, encoding="utf-8")
            self.end("FAILED", hide(f"{type(error).__name__}: {error}"))
        else:
            self.end("KILLED", type(error).__name__)

    @property
    def seconds(self) -> Mapping[str, float]:
        """The wall time of each part that is over."""
        return self.timer.seconds

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Logs the config. Called once."""
        self._write("params", values)

    def log_tags(self, values: Mapping[str, str]) -> None:
        """Logs facts about the run."""
        self._write("tags", values)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Logs metrics. step: an epoch, counted from 1."""
        self._write("metrics", {**values, "step": step})

    def log_input(self, data: Input) -> None:
        """Logs the data set."""
        self._write("input", vars(data))

    def log_artifacts(self) -> None:
        """Sends the artifacts written so far to the store."""

    @contextlib.contextmanager
    def watch_system(self, is_wanted: bool) -> Iterator[None]:
        """Logs what the machine does while the block runs, if this is wanted and the store can take it."""
        yield

    def hide_log(self) -> None:
        """Hides what libraries wrote of secrets to the log, before it is kept."""
        hide_in_file(self.log)

    def log_model(self, model: "keras.Model", metadata: Mapping[str, Any]) -> "keras.Model":
        """Stores the trained model and returns it as loaded again."""
        from mnist_exp.config.own_code import find_own_objects, in_stored_form, load_keras

        path = self.artifacts / "model.keras"
        with in_stored_form(model):
            model.save(path)
        return load_keras(path, find_own_objects(model))

    def load_parent(self, wanted: str) -> tuple[str, "keras.Model", list[str]]:
        """Returns name, model and classes of the run whose weights this one begins with, and records which it is."""
        rule = "needs the tracking store that has the run"
        raise TrackingError(Problem("training.start_from", rule, "tracking=off", "leave tracking=off out"))

    def end(self, status: Status, message: str = "") -> None:
        """Sets the status. The last call; `with` makes it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # other runs are being written
            self.folder.parent.rmdir()

    @property
    def has_checkpoint(self) -> bool:
        """Whether its training has begun: there is a checkpoint from which it goes on."""
        return (self.folder / STATE).is_file()

    @property
    def resumable(self) -> bool:
        """Whether the run can be resumed."""
        return self.id is not None and self.has_checkpoint

    @property
    def undelivered(self) -> str | None:
        """The folder of the run if the store has not accepted everything, else None."""
        return None

    @property
    def refused(self) -> tuple[str, ...]:
        """What the store has refused, and why."""
        return ()

    def _write(self, kind: Kind, values: Mapping[str, Any]) -> None:
        with (self.folder / RECORD).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"kind": kind, "time": time.time(), "values": dict(values)}, default=str) + "\n")


def new_folder(root: Path, name: str) -> Path:
    """Creates a folder below root/running. Raises TrackingError if there is no space or no permission to write."""
    remedy = "choose another folder with tracking.folder=PATH"
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free // 2**20
        if free < SPACE_NEEDED:
            rule = f"must have {SPACE_NEEDED} MB of free space for a run"
            raise TrackingError(Problem(str(root), rule, free, f"make room, or {remedy}"))
        safe = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
        while True:
            with contextlib.suppress(FileExistsError):
                (root / RUNNING).mkdir()
            with contextlib.suppress(FileNotFoundError):  # another run ended and removed the empty folder
                return Path(tempfile.mkdtemp(prefix=f"{safe[:80]}-", dir=root / RUNNING))
    except OSError as error:
        raise TrackingError(Problem(str(root), f"must be a writable folder ({error})", remedy=remedy)) from error


def running_folders(root: Path) -> list[Path]:
    """Returns the folders of runs below root/running, sorted by name. The last run that ends removes root/running."""
    try:
        return sorted((root / RUNNING).iterdir())
    except FileNotFoundError:
        return []
