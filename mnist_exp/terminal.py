"""What a run says in the terminal, and where the chatter of the libraries goes instead."""

import contextlib
import re
import shlex
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mnist_exp.config.schema import Training
from mnist_exp.experiment import Listener, Result
from mnist_exp.log import Chatter
from mnist_exp.tracking.active_run import Record
from mnist_exp.tracking.sqlite import DATABASE, uri_of

if TYPE_CHECKING:
    import keras

    from mnist_exp.data.splits import Splits

LABEL = 9  # columns before the text of a line


def duration(seconds: float) -> str:
    """In the largest unit that says it well."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Speaker:
    """Says things in lines with a label before them, wrapped to the terminal."""

    label = LABEL

    def __init__(self) -> None:
        self.console = Console(highlight=False)

    def say(self, label: str, text: str) -> None:
        """One paragraph."""
        lines = textwrap.wrap(text, self.console.width - self.label, break_long_words=False, break_on_hyphens=False)
        indented = ("\n" + " " * self.label).join(lines)
        self.line(Text.assemble((f"{label:<{self.label}}", "bold"), indented))

    def line(self, line: str | Text) -> None:
        """As it is; a terminal may break it."""
        self.console.print(line, markup=False, soft_wrap=True)


class Terminal(Speaker, Listener):
    """Tells the story of a run: a progress bar in a terminal, plain lines in a log."""

    def __init__(self) -> None:
        super().__init__()
        self.chatter: Chatter | None = None
        self._record: Record | None = None
        self._progress: Progress | None = None
        self._said = ""  # beside the bar
        # Rich would hand what libraries write to standard error to the terminal.
        self._waiting = Live(console=self.console, transient=True, redirect_stderr=False)
        self._settings: Training | None = None
        self._begun = time.perf_counter()

    def data(self, splits: "Splits") -> None:
        height, width, channels = splits.image_shape
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in splits.parts.items())
        self.say("data", splits.description)
        colour = "grey" if channels == 1 else "colour"
        self.say("", f"{sizes}; {height}x{width} {colour}, {len(splits.class_names)} classes")
        for where, count in splits.repeated.items():
            self.say("", f"{count:,} identical images in {where}")
        self._busy("loading the libraries")

    def record(self, record: Record) -> None:
        self._record = record
        if self.chatter:
            self.chatter.move_to(record.log)

    def model(self, model: "keras.Model", settings: Training, differing: Callable[[], list[str]]) -> None:
        self._waiting.stop()
        self._settings = settings
        self.say("differs", ", ".join(differing()) or "nothing from the defaults")
        self.say("model", f"{model.name}, {model.count_params():,} parameters")
        self.say("training", f"{_epochs(settings.epochs)}, batch {settings.batch_size}")
        if self.console.is_interactive:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(None),
                TextColumn("{task.fields[said]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
                redirect_stderr=False,
            )
            self._progress.add_task(f"epoch 0/{settings.epochs}", total=settings.epochs, said="compiling")
            self._progress.start()

    def step(self, epoch: int, step: int, steps: int) -> None:
        if self._progress and self._settings:
            where, done = f"epoch {epoch}/{self._settings.epochs}", epoch - 1 + step / steps
            self._progress.update(self._progress.task_ids[0], completed=done, description=where, said=self._said)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        assert self._settings
        if self._progress:
            self._said = f"loss {metrics['loss']:.4f}  val {metrics['val_accuracy']:.2%}"
            self._progress.update(self._progress.task_ids[0], completed=epoch, said=self._said)
            return
        loss = f"loss {metrics['loss']:.4f}, val {metrics['val_loss']:.4f}"
        accuracy = f"accuracy {metrics['accuracy']:.2%}, val {metrics['val_accuracy']:.2%}"
        seconds = time.perf_counter() - self._begun
        self.line(f"epoch {epoch}/{self._settings.epochs}  {loss}  {accuracy}  {seconds:.0f} s")

    def evaluating(self) -> None:
        self._stop_progress()
        self._busy("evaluating, drawing and saving")

    def result(self, result: Result) -> None:
        """The table at the end of a run."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("", "accuracy", "95% interval", "macro F1", "loss"):
            table.add_column(column, justify="left" if not column else "right")
        for split, label in (("val", "validation"), ("test", "test")):
            numbers = {key.removeprefix(f"{split}/"): value for key, value in result.metrics.items()}
            table.add_row(
                label,
                f"{numbers['accuracy']:.2%}",
                f"{numbers['accuracy_low']:.2%} - {numbers['accuracy_high']:.2%}",
                f"{numbers['macro_f1']:.4f}",
                f"{numbers['loss']:.4f}",
            )
        self.console.print()
        self.console.print(table)
        self.console.print()
        if self._settings and self._settings.batches:
            last = {name: values[-1] for name, values in result.history.items()}
            self.say("fitted", f"its own batches to a loss of {last['loss']:.4f}, accuracy {last['accuracy']:.2%}")
        epochs = len(result.history["loss"])
        used = "" if result.used_epoch == epochs else f", weights of epoch {result.used_epoch}"
        self.say("run", f"{result.name} ({result.run_id[:8]})" if result.run_id else f"{result.name}, not tracked")
        training = f"{result.seconds['training']:.1f} s of it training {_epochs(epochs)}{used}"
        self.say("time", f"{sum(result.seconds.values()):.1f} s, {training}")
        if result.uri:
            self.say("open", where(result.uri))
        if result.trouble:
            self.say("warning", result.trouble)

    def stopped(self, status: int) -> int:
        """The last words of a run that was interrupted (130) or terminated (143); returns the exit status."""
        self.say("stopped", "interrupted" if status == 130 else "terminated")
        if self._record and self._record.id:
            short = f"{self._record.name} ({self._record.id[:8]})"
            trouble = self._record.trouble
            self.say("run", f"{short}: {trouble}" if trouble else f"{short} is recorded as KILLED")
            if self._record.resumable:
                self.say("go on", f"python -m mnist_exp training.resume={self._record.id[:8]}")
        return status

    @contextlib.contextmanager
    def cleared(self) -> Iterator[None]:
        """Clears what moves when the block is left, however."""
        try:
            yield
        finally:
            self._stop_progress()
            self._waiting.stop()

    def _stop_progress(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None

    def _busy(self, what: str) -> None:
        if self.console.is_interactive:
            self._waiting.update(Spinner("dots", what))
            self._waiting.start()


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def where(uri: str) -> str:
    """What shows the runs of this store; a password in its address is not repeated."""
    if uri == uri_of(Path("mlruns", DATABASE).resolve()):
        return "python -m mnist_exp ui"
    shown = re.sub("//[^/@]*@", "//", uri)
    return shown if uri.startswith("http") else f"python -m mnist_exp ui --uri {shlex.quote(shown)}"
