"""The page is read as a browser reads it."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_trials import ERROR, MIXED, ONE, TWELVE, attempts_of, space_of, with_score
from omegaconf import OmegaConf
from test_figures import guesses

from mnist_exp.config.compose import CONF
from mnist_exp.config.run_config import format_value
from mnist_exp.config.schema import Sweep
from mnist_exp.sweep.race import Confirmed
from mnist_exp.sweep.report import report
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial_configs import TrialConfigs
from mnist_exp.sweep.winner import Winner, rank
from mnist_exp.tracking.stored_run import TrialRun

FOLDED = {"meta", "link", "img", "br", "wbr", "input", "hr"}  # they hold nothing
DIGITS = tuple("0123456789")
COMPARE = report._compare_leaders


class Page(HTMLParser):
    """What a page says: its words, tables and addresses, and every tag in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.titles: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        self.addresses += [str(given[name]) for name in ("src", "href", "action", "srcset") if name in given]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "h2":
            self.titles.append("")
        if tag not in FOLDED:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data
        if "h2" in self.open:
            self.titles[-1] += data

    def table(self, title: str) -> list[list[str]]:
        """The rows below a title, the head first."""
        with_table = [found for found in self.titles if found.startswith(("Winner", "Leaderboard", "Not ranked"))]
        return self.tables[next(n for n, found in enumerate(with_table) if found.startswith(title))]


class Kept:
    """Stands for a sweep and its store: the reports of runs, whose answers are right but for a fifth."""

    uri, id, experiment_id = "sqlite:///kept", "0123456789abcdef", "7"

    def __init__(self, folder: Path, names: tuple[str, ...] = DIGITS) -> None:
        self.folder, self.names, self.asked = folder, names, list[str]()
        self.store = self.client = self.run = self
        self.changes: list[dict[str, Any]] = []
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}

    def openings(self) -> list[str]:
        return []

    def fetch(self) -> "Kept":
        return self

    def curve(self, run_id: str, metric: str) -> list[float]:
        return [0.5, 0.6, 0.7]

    def download_artifacts(self, run_id: str, path: str, folder: str) -> Path:
        assert path == "reports/val.json"
        self.asked.append(run_id)
        found = Path(folder, f"{run_id}.json")
        found.write_text(json.dumps(guesses(self.names).report_json()))
        return found


@pytest.fixture(autouse=True, scope="module")
def _no_predictions() -> Iterator[None]:
    """The runs of these trials are not in a store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_compare_leaders", lambda study, record, ranked: [])
        yield


def study_of(section: dict[str, Any], name: str = "mine", **settings: Any) -> Study:
    keys = OmegaConf.to_container(OmegaConf.load(CONF / "sweep" / "default.yaml"))
    overrides = ("sweeps=mine", "model.widths=[64],[128, 64]")
    return Study(
        name,
        Sweep(**{**keys, **settings}),
        "tpe",
        TrialConfigs(space_of(section), {}),
        overrides,
        "0" * 64,  # type: ignore[dict-item]
    )


def write(folder: Path, study: Study, attempts: list[TrialRun], winner: Winner | None = None) -> Page:
    report.write(folder, study, Kept(folder), attempts, winner)  # type: ignore[arg-type]
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def won(attempt: TrialRun) -> Winner:
    test = {"test/accuracy": 0.9712, "test/accuracy_low": 0.9677, "test/accuracy_high": 0.9743}
    return Winner(attempt, test, "# @package _global_\noptimizer: <i>adam</i>\n", [(attempt.number, 0.9712)])


@pytest.fixture(scope="module")
def attempts() -> list[TrialRun]:
    return attempts_of(space_of(MIXED), 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def page(folder: Path, attempts: list[TrialRun]) -> Page:
    """Of a sweep that came to its end."""
    study = study_of(MIXED, name="<u>mine</u> & yours")
    return write(folder, study, attempts, won(rank(attempts, study.objective)[0]))


def test_the_page_needs_nothing_beside_it(page: Page) -> None:
    assert page.addresses
    assert all(
        re.fullmatch(r"http://127\.0\.0\.1:5000/#/experiments/7/runs/run\d+\?workflowType=machine_learning", one)
        for one in page.addresses
    )
    assert not page.tags & {"link", "iframe", "object", "base", "img"}


def test_the_page_shows_everything_once(page: Page) -> None:
    assert page.titles[1:] == [
        "Leaderboard", "Not ranked", "Progress", "Curves", "Confusion matrices of the best", "Importance",
        "Parallel coordinates", "Slices",
    ]  # fmt: skip
    assert "python -m mnist_exp -m sweeps=mine 'model.widths=[64],[128, 64]'" in page.words


def test_its_charts_are_valid(folder: Path, attempts: list[TrialRun]) -> None:
    """The page does not check them, because that takes as long as everything else."""
    charts = list(report._charts(study_of(MIXED), Kept(folder), attempts, None))  # type: ignore[arg-type]
    assert len(charts) == 6
    for chart in charts:
        chart.drawing.to_dict(validate=True)


def test_its_charts_lie_beside_it_as_pictures(folder: Path, page: Page) -> None:
    found = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    assert found.keys() == {f"{title.lower().replace(' ', '_')}.png" for title in page.titles[3:]}
    assert all(content.startswith(b"\x89PNG") and len(content) > 5000 for content in found.values())


def test_what_users_wrote_is_escaped(page: Page) -> None:
    assert ERROR in {row[2] for row in page.table("Not ranked")}
    assert "<u>mine</u> & yours" in page.words
    assert "# @package _global_\noptimizer: <i>adam</i>" in page.words
    assert not page.tags & {"b", "u", "i"}


def test_the_winner_has_its_test_score(page: Page, attempts: list[TrialRun]) -> None:
    best = max(with_score(attempts), key=lambda attempt: attempt.score or 0.0)
    assert page.titles[0] == f"Winner: trial {best.number}"
    assert page.table("Winner")[-1] == ["test", "97.12%", "96.77% - 97.43%"]


def test_every_trial_is_listed(page: Page, attempts: list[TrialRun]) -> None:
    _, *leaders = page.table("Leaderboard")
    _, *others = page.table("Not ranked")
    assert {int(row[1]) for row in leaders} == {a.number for a in attempts if a.outcome == "complete"}
    assert [int(row[0]) for row in others] == [
        attempt.number for outcome in ("failed", "pruned") for attempt in attempts if attempt.outcome == outcome
    ]
    reasons = {state: {row[2] for row in others if row[1] == state} for state in ("failed", "pruned")}
    assert reasons["failed"] == {ERROR}
    assert all(words.startswith("worse than the median of its siblings after epoch ") for words in reasons["pruned"])


def test_the_leaderboard_has_intervals_and_values(page: Page, attempts: list[TrialRun]) -> None:
    head, *rows = page.table("Leaderboard")
    assert head[2:5] == ["val/accuracy", "95% interval of accuracy", ""]
    keys = list(dict.fromkeys(parameter.key for parameter in space_of(MIXED).parameters))
    assert head[5:] == [*keys, "parameters", "epochs", "time"]
    assert [row[0] for row in rows] == [str(place) for place in range(1, len(rows) + 1)]
    assert [float(row[2]) for row in rows] == sorted((float(row[2]) for row in rows), reverse=True)
    best = max(with_score(attempts), key=lambda attempt: attempt.score or 0.0)
    assert best.score
    assert rows[0][3] == f"{best.score - 0.003:.4f} - {best.score + 0.002:.4f}"
    assert rows[0][head.index("model.widths")] == format_value(best.values["model.widths"])
    rate = best.values[f"optimizer={best.values['optimizer']}/optimizer.learning_rate"]
    assert float(rows[0][head.index("optimizer.learning_rate")]) == pytest.approx(rate, rel=1e-3)


def test_the_lowest_loss_comes_first(tmp_path: Path) -> None:
    attempts = attempts_of(space_of(ONE), 3)
    _, *rows = write(tmp_path, study_of(ONE, direction="min", objective="val/loss"), attempts).table("Leaderboard")
    assert [float(row[2]) for row in rows] == sorted(float(row[2]) for row in rows)


def test_several_seeds_have_mean_and_spread(tmp_path: Path) -> None:
    first, second, third = attempts_of(space_of(ONE), 3)
    attempts = [
        replace(first, outcome="pruned"),  # after its first seed
        replace(second, spread=0.0123, tags={"model_run": "seed-2-of-1"}),
        replace(third, spread=0.0234),
    ]
    study, kept = study_of(ONE, executions=3), Kept(tmp_path)
    report.write(tmp_path, study, kept, attempts, won(attempts[1]))  # type: ignore[arg-type]
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    head, *rows = page.table("Leaderboard")
    assert head[3] == "spread over seeds"
    assert {row[1]: row[3] for row in rows} == {"1": "± 0.0123", "2": "± 0.0234"}
    assert "the mean of 3 seeds" in page.words
    assert [row[0] for row in page.table("Winner")[1:]] == ["validation, mean of 3 seeds", "test, its best seed"]
    assert set(kept.asked) == {"seed-2-of-1", "run2"}


def test_confusion_matrices_are_as_the_runs_reported_them(tmp_path: Path) -> None:
    kept, expected = Kept(tmp_path, ("cat", "dog")), guesses(("cat", "dog"))
    title, counts, names = report._confusion(study_of(ONE), kept, attempts_of(space_of(ONE), 1)[0])  # type: ignore[arg-type]
    assert title == f"trial 0, {expected.accuracy:.2%} right"
    assert (counts == expected.confusion).all()
    assert names == ["cat", "dog"]


def test_a_sweep_that_was_stopped_says_what_is_missing(tmp_path: Path) -> None:
    left = TrialRun("run3", 3, {"optimizer.learning_rate": 1e-3}, None, "KILLED", "pending")
    page = write(tmp_path, study_of(ONE), [*attempts_of(space_of(ONE), 3), left])
    assert "4 trials: 3 complete, 1 pending" in page.words
    assert page.table("Not ranked")[-1][:3] == [
        "3",
        "pending",
        "the sweep ended before this trial; sweep.resume runs it again",
    ]
    assert "The test set was not opened" in page.words


@pytest.mark.parametrize(("count", "failing"), [(0, False), (1, False), (2, True)])
def test_small_sweeps_have_a_report(tmp_path: Path, count: int, failing: bool) -> None:
    attempts = attempts_of(space_of(MIXED), count)
    if failing:
        attempts = [replace(attempt, outcome="failed", score=None, error=ERROR) for attempt in attempts]
    page = write(tmp_path, study_of(MIXED), attempts)
    assert ("Leaderboard" in page.titles) == ("Slices" in page.titles) == (count > 0 and not failing)


def test_equal_scores_have_a_report_without_importance(tmp_path: Path) -> None:
    page = write(tmp_path, study_of(MIXED), attempts_of(space_of(MIXED), 8, lambda badness: 0.1135))
    assert page.titles[-2:] == ["Parallel coordinates", "Slices"]
    assert "Importance" not in page.titles


def test_a_blown_up_loss_is_not_all_that_importance_sees() -> None:
    section = {"model.a": "interval(0, 1)", "model.b": "interval(0, 1)"}
    attempts = [
        replace(attempt, score=1e6 if attempt.values["model.a"] > 0.93 else attempt.values["model.b"])
        for attempt in with_score(attempts_of(space_of(section), 60))
    ]
    assert report._shares(study_of(section, direction="min", objective="val/loss"), attempts)["model.b"] > 0.2


def test_200_trials_of_12_parameters_have_a_page_of_bounded_size(tmp_path: Path) -> None:
    head, *rows = write(tmp_path, study_of(TWELVE), attempts_of(space_of(TWELVE), 200)).table("Leaderboard")
    assert len(head) == 5 + 12 + 3
    assert all(len(row) == len(head) for row in rows)
    assert (tmp_path / "report.html").stat().st_size < 4e6


def test_confirmed_trials_are_shown_with_both_ranks(tmp_path: Path) -> None:
    attempts = with_score(attempts_of(space_of(ONE), 6))
    ranked = rank(attempts, study_of(ONE).objective)
    confirmed = [Confirmed(ranked[1], (0.95, 0.97), 1), Confirmed(ranked[0], (0.9,), None)]
    page = write(tmp_path, study_of(ONE), attempts, replace(won(ranked[1]), confirmed=confirmed))
    _, first, second = next(table for table in page.tables if table[0][1] == "mean of new seeds")
    assert first == [str(ranked[1].number), "0.9600", "0.0141", "2", "1", f"{ranked[1].score:.4f}", "2"]
    assert second[4:] == ["out: clearly worse", f"{ranked[0].score:.4f}", "1"]


def test_what_was_changed_while_it_ran_is_told(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    request = {"kind": "more", "arguments": {"words": [3]}, "by": "<b>me</b>@here", "when": 0.0}
    answer = {"accepted": True, "text": "up to 9 trials", "generation": 1, "when": 0.0, "change": {"runs": []}}
    kept.params, kept.tags = {"request/1": json.dumps(request)}, {"answer/1": json.dumps(answer)}
    report.write(tmp_path, study_of(ONE), kept, attempts_of(space_of(ONE), 3), None)  # type: ignore[arg-type]
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "more 3 (<b>me</b>@here): up to 9 trials" in " ".join(page.words.split())


def test_the_importance_says_how_far_it_can_be_trusted() -> None:
    section = {"model.a": "interval(0, 1)", "model.b": "interval(0, 1)"}
    study, trials = study_of(section), with_score(attempts_of(space_of(section), 60))
    clear = [replace(one, score=one.values["model.a"] + 0.01 * one.values["model.b"]) for one in trials]
    shares = report._shares(study, clear)
    text = report._trust(len(clear), shares, report._ranges(study, clear, shares))
    assert text.endswith("and more than every other parameter in all of them.")
    few = trials[:6]
    shares = report._shares(study, few)
    assert "with so few trials it is not certain" in report._trust(6, shares, report._ranges(study, few, shares))


def test_leaders_are_compared_on_the_same_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    labels = np.arange(400) % 10
    good, alike, bad = labels.copy(), labels.copy(), labels.copy()
    good[:20], alike[10:30], bad[:120] = 11, 11, 11
    digests = np.arange(400)

    def run(predicted: np.ndarray) -> Any:
        arrays = {"val_digests": digests, "val_labels": labels, "val_predicted": predicted}
        return type("Run", (), {"predictions": arrays})

    trials = with_score(attempts_of(space_of(ONE), 4))[:3]
    monkeypatch.setattr(report, "fetch_run", lambda store, run_id: run_id)
    monkeypatch.setattr(report, "read_runs", lambda store, runs: [run(good), run(alike), run(bad)])
    study: Any = type("Study", (), {"settings": study_of(ONE).settings})
    interval, better, same = COMPARE(study, Kept(tmp_path), trials)
    numbers = [trial.number for trial in trials]
    assert "these 400 validation images" in interval
    assert better.startswith(f"On the same images trial {numbers[0]} is better than trial {numbers[2]} ")
    assert same.startswith(f"These images do not show that trial {numbers[0]} differs from trial {numbers[1]}: ")
