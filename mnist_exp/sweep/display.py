"""Shows a sweep: a live table in a terminal, one line per trial in a log."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import format_value
from mnist_exp.sweep.study import Study
from mnist_exp.terminal import Console, format_duration

if TYPE_CHECKING:
    from mnist_exp.sweep.winner import Winner

LOOK = 2.0  # seconds between looks at the curves of running trials
LEADERS = 5
STATES = ("complete", "pruned", "failed")
STOPPING = "no more trials start; Ctrl-C again ends the running ones at once"


@dataclass
class TrialRow:
    """A running trial. curve: its objective epoch by epoch, as far as it is known."""

    run_id: str
    values: Mapping[str, Any]
    begun: float = field(default_factory=time.monotonic)
    curve: list[float] = field(default_factory=list)


class SweepDisplay(Console):
    """Shows running and finished trials in the terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.running: dict[int, TrialRow] = {}
        self.ended: dict[int, tuple[Mapping[str, Any], float | None, str]] = {}  # values, score, state
        self.total: int | None = None
        self.is_stopping = False
        self._objective = Objective("", "max")
        self._seconds: list[float] = []
        self._looked = 0.0
        self._curve_of: Callable[[str], list[float]] = lambda run_id: []

    def watch(self, place: str) -> None:
        """Another process may run the sweep: it is watched for up to a minute."""
        self.say("waiting", f"up to a minute, to see whether {place}, still runs the sweep")

    def begin_sweep(self, study: Study, total: int | None, width: int, curve_of: Callable[[str], list[float]]) -> None:
        """The sweep is about to start.

        total: the number of trials, None if it is not known. width: how many run at once, 0 if it is not known.
        curve_of: returns the objective of a run, epoch by epoch.
        """
        self.total, self._curve_of = total, curve_of
        self._objective = objective = study.objective
        trials = "trials until none is left" if total is None else f"{total} trials"
        pace = f"{width} at a time" if width else "as many as there are workers"
        self.say("sweep", f"{study.name}: {study.algorithm}, {trials}, {pace}")
        keys = dict.fromkeys(parameter.key for parameter in study.space.parameters)
        self.say("space", ", ".join(keys))
        goal = f"{objective.direction}imize {objective.metric}"
        self.say("objective", f"{goal}; the test set is not used during the sweep")

    def begin(self, number: int, run_id: str, values: Mapping[str, Any]) -> None:
        """A trial starts."""
        self.running[number] = TrialRow(run_id, values)

    def end(self, number: int, values: Mapping[str, Any], score: float | None, state: str, error: str = "") -> None:
        """A trial ended. state: complete, pruned or failed."""
        if row := self.running.pop(number, None):
            self._seconds.append(time.monotonic() - row.begun)
        self.ended[number] = values, score, state
        if self.console.is_interactive:
            return
        shown = f"{score:.4f}" if score is not None else state
        self.say(f"{number:>5}", f"{shown}{' pruned' * (state == 'pruned')}  {format_values(values)}  {error}")

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Shows the table while the block runs."""
        if not self.console.is_interactive:
            yield
            return
        keys: Any = {"refresh_per_second": 2, "transient": True, "redirect_stderr": False}
        with Live(console=self.console, get_renderable=self._table, **keys):
            yield

    def _table(self) -> RenderableType:
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            for row in list(self.running.values()):
                with contextlib.suppress(Exception):  # of the store: the sweep does not depend on this look
                    row.curve = self._curve_of(row.run_id)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=True)
        table.add_column("trial", justify="right", width=5)
        table.add_column("score", justify="right", width=7)
        table.add_column("", width=9)
        table.add_column("values", ratio=1, no_wrap=True, overflow="ellipsis")
        for number, row in sorted(self.running.items()):
            last = f"{row.curve[-1]:.4f}" if row.curve else ""
            table.add_row(str(number), last, f"epoch {len(row.curve)}", format_values(row.values))
        for number, (values, score, state) in self._leaders():
            table.add_row(str(number), f"{score:.4f}", state, format_values(values), style="dim")
        return Group(Text(self._headline(), style="bold"), table)

    def _leaders(self) -> list[tuple[int, tuple[Mapping[str, Any], float | None, str]]]:
        scored = [(n, one) for n, one in list(self.ended.items()) if one[1] is not None]
        return sorted(scored, key=lambda pair: self._objective.rank(pair[1][1] or 0.0))[:LEADERS]

    def _headline(self) -> str:
        counts = self._counts()
        if self.is_stopping:
            return f"{len(self.ended)} trials ended; {STOPPING}"
        of = f" of {self.total}" if self.total else ""
        left = ""
        if self.total and self._seconds:
            mean = sum(self._seconds) / len(self._seconds)
            left = f", about {format_duration(mean * (self.total - len(self.ended)) / max(1, len(self.running)))} left"
        return f"{len(self.ended)}{of} trials ended{f': {counts}' if counts else ''}{left}"

    def _counts(self) -> str:
        states = [state for _, _, state in list(self.ended.values())]
        return ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)

    def stopping(self) -> None:
        """No more trials start. Called by the handler of a signal."""
        self.is_stopping = True
        if not self.console.is_interactive:
            with contextlib.suppress(RuntimeError):  # the signal has interrupted a print
                self.say("stopping", STOPPING)

    def end_sweep(self, why: str, best: int | None) -> None:
        """The last trial ended. why: why no other follows. best: the number of the best trial."""
        self.say("trials", f"{len(self.ended)}: {self._counts() or 'none'}; {why}")
        if best is not None:
            values, score, _ = self.ended[best]
            self.say("best", f"trial {best}, {self._objective.metric} {score:.4f}: {format_values(values)}")

    def results(self, winner: "Winner") -> None:
        """Shows the best trial and its test score."""
        rows = []
        for split, metrics, word in (("val", winner.trial.metrics, "validation"), ("test", winner.test, "test")):
            accuracy, low, high = (f"{metrics[f'{split}/accuracy{end}']:.2%}" for end in ("", "_low", "_high"))
            rows.append((word, accuracy, f"{low} - {high}", f"{metrics[f'{split}/macro_f1']:.4f}"))
        self.table(("", "accuracy", "95% interval", "macro F1"), rows)


def format_values(values: Mapping[str, Any]) -> str:
    """Returns values as overrides, without conditions, and with short numbers."""
    return " ".join(
        f"{name.rpartition('/')[2] if '=' in name else name}={shorten(value)}" for name, value in values.items()
    )


def shorten(value: Any) -> str:
    """Returns a value as a user would type it; a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else format_value(value)
