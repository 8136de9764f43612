import io
from dataclasses import replace
from typing import Any

import pytest
from light_trials import study_of
from rich.console import Console

from mnist_exp.sweep import display as display_module
from mnist_exp.sweep.display import SweepDisplay, choose_columns, format_values
from mnist_exp.terminal import format_duration
from mnist_exp.tracking.stored_run import Outcome, TrialRun

VALUES = {"optimizer": "adam", "optimizer=adam/optimizer.learning_rate": 0.00123456, "model.widths": [256, 128]}


def ended(number: int, score: float | None, outcome: Outcome = "complete", values: Any = VALUES) -> TrialRun:
    outcome = "failed" if score is None else outcome
    return TrialRun(f"run-{number}", number, values, None, "FINISHED", outcome, score)


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> SweepDisplay:
    """One on a terminal of 80 columns, in the middle of a sweep of ten."""
    monkeypatch.setattr(display_module, "LOOK", 0.0)
    found = SweepDisplay()
    found.console = Console(file=io.StringIO(), width=80, force_terminal=True, force_interactive=True)
    found.begin_sweep(study_of("random"), 10, 2, lambda run: [0.5, 0.75] if run == "run-4" else [])
    for number, score in enumerate((0.91, 0.97, None, 0.95)):
        found.begin(number, f"run-{number}", VALUES)
        found.end(ended(number, score), "" if score else "ValueError: no")
    found.begin(4, "run-4", VALUES)
    return found


def shown(display: SweepDisplay) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(display._table())
    return console.file.getvalue().splitlines()


def test_the_table_has_what_runs_with_epoch_and_score_then_the_best(display: SweepDisplay) -> None:
    headline, _, running, *leaders = shown(display)
    assert headline.startswith("4 of 10 trials ended: 3 complete, 1 failed, about 0 s left")
    assert running.split()[:4] == ["4", "0.7500", "epoch", "2"]
    assert [line.split()[0] for line in leaders] == ["1", "3", "0"]
    assert "0.001235" in running


def test_a_pruned_trial_is_no_leader_and_neither_is_one_of_a_smaller_budget(display: SweepDisplay) -> None:
    display.end(ended(5, 0.99, "pruned"))
    assert [line.split()[0] for line in shown(display)[3:]] == ["1", "3", "0"]
    for number, epochs in enumerate((3, 9), start=6):
        rung = {"epochs": epochs, "bracket": 0, "number": 0, "parent": None}
        display.end(replace(ended(number, 0.5), rung=rung))
    assert [line.split()[0] for line in shown(display)[3:]] == ["7"]


def test_the_table_keeps_to_its_width(display: SweepDisplay) -> None:
    display.begin(5, "run-5", {f"model.some_long_key_{n}": 0.123456789 for n in range(9)})
    assert max(map(len, shown(display))) <= 80


def test_the_learning_rate_is_seen_at_80_columns_and_equal_keys_are_left_out_first(display: SweepDisplay) -> None:
    display.running.clear()
    display.ended.clear()
    for number in range(4):
        values = {"model": "cnn", "model=cnn/model.filters": [[32, 64], [64, 128]][number % 2]}
        values |= {"model.dropout": number / 10, "model.some_long_key_of_a_net": "x" * 30 + str(number)}
        values |= {"training.label_smoothing": 0.1, "dataset.validation": 0.1, "optimizer": "adam"}
        values |= {"optimizer=adam/optimizer.learning_rate": 0.00123456 * (number + 1)}
        display.end(ended(number, 0.9 + number / 100, values=values))
    _, header, *rows, note = shown(display)
    assert header.split()[:4] == ["trial", "score", "learning_rate", "filters"]
    assert ["0.004938" in rows[0], "0.001235" in rows[3], "[64,128]" in rows[0]] == [True] * 3
    assert "dropout" in header
    assert note.startswith("not shown: optimizer, model, ")
    assert max(map(len, [header, *rows, note])) <= 80


def test_the_learning_rate_stays_if_nothing_else_fits() -> None:
    rows = [
        {"optimizer.learning_rate": str(number), "model.widths": f"[{number}]", "model": "mlp"} for number in (1, 2)
    ]
    columns, hidden = choose_columns(rows, 12)
    assert (list(columns), hidden) == (["optimizer.learning_rate"], ["model.widths", "model"])
    columns, hidden = choose_columns(rows, 80)
    assert list(columns) == ["optimizer.learning_rate", "model.widths", "model"]
    assert hidden == []


def test_two_keys_with_the_same_last_part_have_whole_headers() -> None:
    rows = [{"dataset.seed": "1", "sweep.seed": "2"}, {"dataset.seed": "3", "sweep.seed": "4"}]
    columns, _ = choose_columns(rows, 80)
    assert [header for header, _ in columns.values()] == ["dataset.seed", "sweep.seed"]


def test_a_store_that_does_not_answer_stops_no_sweep(display: SweepDisplay) -> None:
    def silent(run_id: str) -> list[float]:
        raise OSError("the server is away")

    display._curve_of = silent
    assert len(shown(display)) == 6


def test_in_a_log_each_trial_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    display = SweepDisplay()
    display.begin_sweep(study_of("random"), 10, 2, lambda run_id: [])
    with display.live():
        display.begin(0, "run", VALUES)
        display.end(ended(0, 0.91234))
        display.end(ended(1, 0.5, "pruned"))
        display.end(ended(2, None), "ValueError: no")
    display.end_sweep("every planned trial has run", 0)
    out = " ".join(capsys.readouterr().out.split())
    assert "10 trials, 2 at a time" in out
    assert "0 0.9123 optimizer=adam optimizer.learning_rate=0.001235 model.widths=[256,128]" in out
    assert "1 0.5000 pruned optimizer=adam" in out
    assert "2 failed optimizer=adam optimizer.learning_rate=0.001235 model.widths=[256,128] ValueError: no" in out
    assert "3: 1 complete, 1 pruned, 1 failed; every planned trial has run" in out
    assert "best trial 0, val/accuracy 0.9123" in out


def test_values_are_shown_as_a_user_types_them_without_their_conditions() -> None:
    assert (
        format_values({"a=x,y/model.rate": 0.5, "model._target_": "my.net"}) == "model.rate=0.5 model._target_=my.net"
    )
    odd = {
        "a": None,
        "b": True,
        "c": [128, [64, "x y"]],
        "d": "123",
        "e": "my data (1).npz",
        "f": 1e-05,
        "g": {"zoom": 0.1},
    }
    assert format_values(odd) == "a=null b=true c=[128,[64,'x y']] d='123' e='my data (1).npz' f=1e-05 g={zoom:0.1}"


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_said_in_the_unit_that_suits(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
