"""What a run prints: labelled lines, and a progress bar in an interactive terminal."""

import contextlib
import math
import shlex
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich.console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from mnist_exp.config.compose import Composed
from mnist_exp.config.run_config import RunConfig, format_value
from mnist_exp.config.schema import Training
from mnist_exp.evaluation.metrics import SPLITS, table_of_scores
from mnist_exp.experiment import Result, configure, run
from mnist_exp.log import LibraryOutput, hide_library_output
from mnist_exp.secrets import hide
from mnist_exp.signals import INTERRUPTED, Terminated, exit_status, raise_on_signals
from mnist_exp.tracking.active_run import ActiveRun
from mnist_exp.tracking.sqlite import DATABASE, uri_of
from mnist_exp.trainer import Listener

if TYPE_CHECKING:
    import keras

    from mnist_exp.data.splits import Splits

LABEL = 11  # columns before the text of a line
BETWEEN_TIMES = 10  # epochs between two lines with the time that is left
DELIVER = "deliver it with: python -m mnist_exp store deliver"


def run_and_show(composed: Composed) -> int:
    """Runs what a command line asks for, shows it in the terminal and returns the exit status."""
    display = RunDisplay()
    try:
        with raise_on_signals(), hide_library_output() as display.output, display.cleared():
            result = run(configure(composed), display)
    except (KeyboardInterrupt, Terminated) as stop:
        return display.show_stop(exit_status(stop))
    display.show_result(result)
    return int(result.undelivered is not None)


def format_duration(seconds: float) -> str:
    """Returns a duration in seconds, minutes or hours, with two or three digits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def command_to_open(uri: str) -> str:
    """Returns the command or the address that shows the runs of this store, without a password."""
    if uri == uri_of(Path("mlruns", DATABASE).resolve()):
        return "python -m mnist_exp ui"
    shown = hide(uri)
    return shown if uri.startswith("http") else f"python -m mnist_exp ui --uri {shlex.quote(shown)}"


class Console:
    """Prints lines with a label before them, wrapped to the width of the terminal."""

    def __init__(self) -> None:
        self.console = rich.console.Console(highlight=False)

    def say(self, label: str, text: str) -> None:
        """Prints one paragraph."""
        lines = textwrap.wrap(hide(text), self.console.width - LABEL, break_long_words=False, break_on_hyphens=False)
        indented = ("\n" + " " * LABEL).join(lines)
        self.line(Text.assemble((f"{label:<{LABEL}}", "bold"), indented))

    def line(self, line: str | Text) -> None:
        """Prints a line without secrets; a terminal may break it."""
        self.console.print(hide(line) if isinstance(line, str) else line, markup=False, soft_wrap=True)

    def table(self, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """Prints a table between empty lines: the first column to the left, the others to the right."""
        headers = [Column(name, justify="right" if name else "left") for name in columns]
        table = Table(*headers, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*row)
        self.console.print("", table, "")


class RunDisplay(Console, Listener):
    """Shows the progress of a run: a progress bar in an interactive terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.output: LibraryOutput | None = None
        self._active: ActiveRun | None = None
        # Rich would send to the terminal what libraries write to standard error.
        self._waiting = Live(console=self.console, transient=True, redirect_stderr=False)
        counter, last = TextColumn("epoch {task.fields[epoch]}/{task.total}"), TextColumn("{task.fields[last]}")
        columns = counter, BarColumn(None), last, TimeRemainingColumn()
        self._progress = Progress(*columns, console=self.console, transient=True, redirect_stderr=False)
        self._task = self._progress.add_task("", epoch=0, last="compiling")
        self._last_epoch = ""  # beside the bar
        self._settings: Training | None = None
        self._started = time.perf_counter()  # of the training
        self._first_epoch: int | None = None  # of this process: a resumed run begins later

    def on_data(self, splits: "Splits") -> None:
        height, width, channels = splits.image_shape
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in splits.parts.items())
        self.say("data", splits.description)
        colour = "grey" if channels == 1 else "colour"
        self.say("", f"{sizes}; {height}x{width} {colour}, {len(splits.class_names)} classes")
        for where, count in splits.repeated.items():
            self.say("", f"{count:,} identical images in {where}")
        for note in splits.notes:
            self.say("note", note)
        self._wait_for("loading the libraries")

    def on_start(self, active: ActiveRun) -> None:
        self._active = active
        if self.output:
            self.output.move_to(active.log)

    def on_model(self, model: "keras.Model", config: RunConfig) -> None:
        self._waiting.stop()
        self._settings = settings = config.settings(Training)
        choices, values = config.differences()
        changed = [f"{group}={choice}" for group, choice in choices.items()]
        changed += [f"{key}={format_value(value)}" for key, value in values.items()]
        self.say("changed", ", ".join(changed) or "nothing; all values are the defaults")
        self.say("model", f"{model.name}, {model.count_params():,} parameters")
        self.say("training", f"{_epochs(settings.epochs)}, batch {settings.batch_size}")
        self._started = time.perf_counter()
        if self.console.is_interactive:
            self._progress.reset(self._task, total=settings.epochs)
            self._progress.start()

    def on_fold(self, fold: int, folds: int) -> None:
        self.say("fold", f"{fold} of {folds}")
        self._started, self._first_epoch = time.perf_counter(), None
        if self.console.is_interactive:
            assert self._settings
            self._progress.reset(self._task, total=self._settings.epochs)

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        self._progress.update(self._task, completed=epoch - 1 + step / steps, epoch=epoch, last=self._last_epoch)

    def on_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        assert self._settings
        self._first_epoch = self._first_epoch or epoch
        if self.console.is_interactive:
            self._last_epoch = f"loss {metrics['loss']:.4f}  val {metrics['val_accuracy']:.2%}"
            self.on_step(epoch, 1, 1)
            return
        loss = f"loss {metrics['loss']:.4f}, val {metrics['val_loss']:.4f}"
        accuracy = f"accuracy {metrics['accuracy']:.2%}, val {metrics['val_accuracy']:.2%}"
        seconds = time.perf_counter() - self._started
        self.line(f"epoch {epoch}/{self._settings.epochs}  {loss}  {accuracy}  {format_duration(seconds)}")
        remaining = self._settings.epochs - epoch
        if remaining and (epoch == self._first_epoch or epoch % BETWEEN_TIMES == 0):
            per_epoch = seconds / (epoch - self._first_epoch + 1)
            self.say("time", f"{_seconds(per_epoch)} s per epoch, about {format_duration(per_epoch * remaining)} left")

    def on_note(self, text: str) -> None:
        self.say("note", text)

    def on_evaluation(self) -> None:
        self._progress.live.stop()
        self._wait_for("evaluating, drawing and saving")

    def show_result(self, result: Result) -> None:
        """Prints the table at the end of a run."""
        self.table(*table_of_scores(result.metrics, list(SPLITS)))
        if result.diverged:
            guessing = f"{math.log(len(result.class_names)):.3g}"
            found = f"the cross-entropy is {result.metrics['val/cross_entropy']:.3g}, that of guessing is {guessing}"
            self.say("warning", f"the training diverged: {found}; lower optimizer.learning_rate")
        if self._settings and self._settings.batches:
            last = {name: values[-1] for name, values in result.history.items()}
            self.say("fitted", f"its own batches to a loss of {last['loss']:.4f}, accuracy {last['accuracy']:.2%}")
        epochs = len(result.history["loss"])
        used = "" if result.used_epoch == epochs else f", weights of epoch {result.used_epoch}"
        self.say("run", f"{result.name} ({result.run_id[:8]})" if result.run_id else f"{result.name}, not tracked")
        training = f"{result.seconds['training']:.1f} s of it training {_epochs(epochs)}{used}"
        self.say("time", f"{sum(result.seconds.values()):.1f} s, {training}")
        if result.uri:
            self.say("open", command_to_open(result.uri))
        if result.undelivered:
            self.say("warning", _undelivered(result.undelivered, result.refused))

    def show_stop(self, status: int) -> int:
        """Prints how a run that was interrupted or terminated can be resumed. Returns the exit status."""
        self.say("stopped", "interrupted" if status == INTERRUPTED else "terminated")
        if self._active and self._active.id:
            name = f"{self._active.name} ({self._active.id[:8]})"
            undelivered = self._active.undelivered
            warning = _undelivered(undelivered, self._active.refused) if undelivered else ""
            self.say("run", f"{name}: {warning}" if warning else f"{name} is recorded as KILLED")
            if self._active.resumable:
                self.say("resume", f"python -m mnist_exp training.resume={self._active.id[:8]}")
        return status

    @contextlib.contextmanager
    def cleared(self) -> Iterator[None]:
        """Removes the progress bar when the block ends, also if it fails."""
        try:
            yield
        finally:
            self._progress.live.stop()
            self._waiting.stop()

    def _wait_for(self, what: str) -> None:
        if self.console.is_interactive:
            self._waiting.update(Spinner("dots", what))
            self._waiting.start()


def _undelivered(folder: str, refused: Sequence[str]) -> str:
    why = f"the store refused {'; '.join(refused)}" if refused else "the store was away until the end of the run"
    return f"{why}; it is kept in {folder}; {DELIVER}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1g}" if seconds < 0.1 else f"{seconds:.1f}"


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
