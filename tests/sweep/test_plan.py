"""sweep.plan=true, by the command line."""

import sys
from pathlib import Path

import pytest
from command_line import run, store_in

from mnist_exp import cli
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.sqlite import DATABASE

SWEPT = ["dataset=digits", "dataset.size=8", "training=smoke", "model.widths=[8],[16,8]", "seed=1,2"]


def planned(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["mnist_exp", "-m", *arguments, "sweep.plan=true"])
    cli.main()
    return capsys.readouterr().out


def test_a_plan_lists_what_would_run_and_starts_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    out = planned(capsys, monkeypatch, *SWEPT)
    assert "grid, 4 trials, 1 at a time" in out
    rows = [line.split() for line in out.splitlines() if "seed=" in line]
    assert [row[1:] for row in rows] == [
        ["model.widths=[8]", "seed=1"], ["model.widths=[8]", "seed=2"],
        ["model.widths=[16,8]", "seed=1"], ["model.widths=[16,8]", "seed=2"],
    ]  # fmt: skip
    dense = 64 * 8 + 8 + 8 * 10 + 10
    deeper = 64 * 16 + 16 + 16 * 8 + 8 + 8 * 10 + 10
    assert [row[0] for row in rows] == [f"{dense:,}"] * 2 + [f"{deeper:,}"] * 2
    assert "work 4 trials, 8 epochs: 4 to epoch 2" in " ".join(out.split())
    assert f"by short trainings of {dense:,} and {deeper:,} parameters" in " ".join(out.split())
    assert list(tmp_path.iterdir()) == []


def test_a_plan_knows_what_was_trained_before_and_how_long_it_takes(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    before = run(tmp_path, *SWEPT[:3], "model.widths=[8],[32]", "seed=1,2")
    assert before.returncode == 0, before.stderr
    runs = len(list_runs(store_in(tmp_path), ""))
    out = planned(capsys, monkeypatch, *SWEPT)
    assert "2 of them were trained in an earlier sweep of this store" in out
    assert "for the trials, by 4 runs of these models on this data" in " ".join(out.split())
    assert len(list_runs(store_in(tmp_path), "")) == runs


def test_a_guided_sweep_plans_its_first_proposals(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    out = planned(capsys, monkeypatch, *SWEPT[:3], "model.dropout=interval(0,0.5)", "sweep.max_trials=30")
    rows = [line for line in out.splitlines() if "model.dropout=" in line]
    assert len(set(rows)) == len(rows) == 10
    assert "the first proposals, before any score is known" in out


def test_a_plan_creates_no_store_where_another_one_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / DATABASE).touch()
    other = tmp_path / "other.db"
    out = planned(capsys, monkeypatch, *SWEPT, f"tracking.uri=sqlite:///{other}")
    assert "the store holds no run of these models" in " ".join(out.split())
    assert not other.exists()


def test_a_median_makes_it_at_most_and_a_timeout_makes_it_that(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path, *SWEPT[:3], "model.widths=[8],[32]")
    space = (*SWEPT[:3], "model.dropout=interval(0,0.5)", "training.epochs=3")
    assert "at most about" in planned(capsys, monkeypatch, *space, "sweep.max_trials=30", "sweep.pruner=median")
    out = planned(capsys, monkeypatch, *space, "sweep.max_trials=30", "sweep.max_epochs=30", "sweep.pruner=off")
    assert "10 trials, 30 epochs: 10 to epoch 3" in " ".join(out.split())
