"""Shows a sweep: a live table in a terminal, one line per trial in a log."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import format_value
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.winner import Winner, rank
from mnist_exp.terminal import Console, format_duration
from mnist_exp.tracking.stored_run import TrialRun

LOOK = 2.0  # seconds between looks at the curves of running trials
LEADERS = 5
GAP = 2  # spaces between columns
FIXED = 5 + 7 + 9 + 3 * GAP  # the width of the columns before the values
WIDEST, NARROWEST = 14, 7  # the most letters of a value, and those that a header needs to be understood
SECTIONS = ("optimizer", "model", "training", "dataset")  # in the order of their columns
STATES = ("complete", "pruned", "failed", "infeasible")
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
        self.ended: dict[int, TrialRun] = {}
        self.total: int | None = None
        self.is_stopping = self.is_paused = False
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
        if most := study.settings.max_epochs:
            trials = f"{'trials' if total is None else trials} until {most} epochs are trained"
        pace = f"{width} at a time" if width else "as many as there are workers"
        pruner = "" if study.settings.pruner in ("off", "hyperband") else f" with {study.settings.pruner}"
        self.say("sweep", f"{study.name}: {study.algorithm}{pruner}, {trials}, {pace}")
        keys = dict.fromkeys(parameter.key for parameter in study.space.parameters)
        self.say("space", ", ".join(keys))
        goal = f"{objective.direction}imize {objective.metric}"
        self.say("objective", f"{goal}; the test set is not used during the sweep")

    def follow(self, objective: Objective, total: int | None, ended: Mapping[int, TrialRun]) -> None:
        """Shows a sweep that another process runs."""
        self._objective, self.total, self.ended = objective, total, dict(ended)

    def begin(self, number: int, run_id: str, values: Mapping[str, Any]) -> None:
        """A trial starts."""
        self.running[number] = TrialRow(run_id, values)

    def end(self, trial: TrialRun, note: str = "") -> None:
        """A trial ended. note: why it failed, or that it diverged."""
        if row := self.running.pop(trial.number, None):
            self._seconds.append(time.monotonic() - row.begun)
        self.ended[trial.number] = trial
        if self.console.is_interactive:
            return
        shown = f"{trial.score:.4f}" if trial.score is not None else trial.outcome
        pruned = " pruned" * (trial.outcome == "pruned")
        self.say(f"{trial.number:>5}", f"{shown}{pruned}  {format_values(trial.values)}  {note}")

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
        running, leaders = sorted(self.running.items()), rank(list(self.ended.values()), self._objective)[:LEADERS]
        shown = [*(row.values for _, row in running), *(trial.values for trial in leaders)]
        rows = [values_by_key(values) for values in shown]
        columns, hidden = choose_columns(rows, self.console.width - FIXED)
        table = Table(box=None, padding=(0, GAP, 0, 0), header_style="bold")
        table.add_column("trial", justify="right", width=5)
        table.add_column("score", justify="right", width=7)
        table.add_column("", width=9)
        for name, width in columns.values():
            table.add_column(name, width=width, no_wrap=True, overflow="ellipsis")
        cells = [[row.get(key, "") for key in columns] for row in rows]
        for (number, trial), values in zip(running, cells, strict=False):
            last = f"{trial.curve[-1]:.4f}" if trial.curve else ""
            table.add_row(str(number), last, f"epoch {len(trial.curve)}", *map(Text, values))
        for leader, values in zip(leaders, cells[len(running) :], strict=True):
            table.add_row(str(leader.number), f"{leader.score:.4f}", leader.outcome, *map(Text, values), style="dim")
        lines: list[RenderableType] = [Text(self._headline(), style="bold"), table]
        if hidden:
            note = Text(f"not shown: {', '.join(hidden)}", style="dim", no_wrap=True, overflow="ellipsis")
            lines.append(note)
        return Group(*lines)

    def _headline(self) -> str:
        counts = self._counts()
        if self.is_stopping:
            return f"{len(self.ended)} trials ended; {STOPPING}"
        if self.is_paused:
            return f"{len(self.ended)} trials ended: {counts or 'none'}; paused"
        of = f" of {self.total}" if self.total else ""
        left = ""
        if self.total and self._seconds:
            mean = sum(self._seconds) / len(self._seconds)
            left = f", about {format_duration(mean * (self.total - len(self.ended)) / max(1, len(self.running)))} left"
        return f"{len(self.ended)}{of} trials ended{f': {counts}' if counts else ''}{left}"

    def _counts(self) -> str:
        states = [trial.outcome for trial in list(self.ended.values())]
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
            trial = self.ended[best]
            self.say("best", f"trial {best}, {self._objective.metric} {trial.score:.4f}: {format_values(trial.values)}")

    def confirmed(self, winner: Winner) -> None:
        """Shows how the best trials did with new seeds, if they were trained again."""
        for place, one in enumerate(winner.confirmed, 1):
            means = f"mean of {len(one.scores)} new seeds {one.mean:.4f} (spread {one.spread:.4f})"
            out = "" if one.rank else "; clearly worse, so it was not trained further"
            text = f"trial {one.trial.number}: {means}; {one.trial.score:.4f} in the sweep{out}"
            self.say("confirmed" * (place == 1), text)

    def results(self, winner: Winner) -> None:
        """Shows the best trial and its test score."""
        rows = []
        for split, metrics, word in (("val", winner.trial.metrics, "validation"), ("test", winner.test, "test")):
            accuracy, low, high = (f"{metrics[f'{split}/accuracy{end}']:.2%}" for end in ("", "_low", "_high"))
            rows.append((word, accuracy, f"{low.removesuffix('%')}-{high}", f"{metrics[f'{split}/macro_f1']:.4f}"))
        self.table(("", "accuracy", "95% interval", "macro F1"), rows)


def choose_columns(rows: Sequence[Mapping[str, str]], width: int) -> tuple[dict[str, tuple[str, int]], list[str]]:
    """Chooses the keys that a table of this width can show.

    rows: values as text by key. Returns the header and width of each column by key, most important first, and the keys
    that have none. If the width does not suffice, keys with the same value in all rows are left out first, then the
    least important ones.
    """
    keys = sorted(dict.fromkeys(key for row in rows for key in row), key=_importance)
    varied = [key for key in keys if len({row.get(key) for row in rows}) > 1]
    wanted = [*varied, *(key for key in keys if key not in varied)]
    headers = {key: _header(key, keys) for key in keys}
    columns: dict[str, tuple[str, int]] = {}
    for key in wanted:
        values = min(max(len(row.get(key, "")) for row in rows), WIDEST)
        columns[key] = headers[key], max(values, min(len(headers[key]), NARROWEST))
    while len(columns) > 1 and _total(columns) > width:
        columns.popitem()
    for key, (header, narrow) in columns.items():  # the space that is left makes headers whole
        spare = width - _total(columns)
        columns[key] = header, min(max(narrow, len(header)), narrow + max(spare, 0))
    return columns, [key for key in keys if key not in columns]


def _importance(key: str) -> int:
    """Returns a sort key: the learning rate first, then choices, optimizer, model and training."""
    if key == "optimizer.learning_rate":
        return 0
    section = key.partition(".")[0]
    return 1 + SECTIONS.index(section) if section in SECTIONS else len(SECTIONS) + 1


def _header(key: str, keys: Sequence[str]) -> str:
    """Returns the last part of a key if no other key ends with it."""
    last = key.rpartition(".")[2]
    return last if [other.rpartition(".")[2] for other in keys].count(last) == 1 else key


def _total(columns: Mapping[str, tuple[str, int]]) -> int:
    return sum(width + GAP for _, width in columns.values())


def values_by_key(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns values as text by their key, without conditions, and with short numbers."""
    return {name.rpartition("/")[2] if "=" in name else name: shorten(value) for name, value in values.items()}


def format_values(values: Mapping[str, Any]) -> str:
    """Returns values as overrides."""
    return " ".join(f"{key}={value}" for key, value in values_by_key(values).items())


def shorten(value: Any) -> str:
    """Returns a value as a user would type it; a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else format_value(value)
