"""The report of a sweep: figures and one self-contained HTML file."""

import base64
import io
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.figure import Figure

from mnist_exp.secrets import hide
from mnist_exp.sweep.display import format_values, shorten
from mnist_exp.sweep.report import figures
from mnist_exp.sweep.samplers.importance import importances
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.winner import Winner, rank
from mnist_exp.terminal import format_duration
from mnist_exp.tracking.stored_run import TrialRun, download
from mnist_exp.tracking.sweep_run import SweepRun

PAGE = Path(__file__).with_name("report.html")
SHOWN = 3  # best trials whose confusion matrices stand side by side
DPI = 144  # of the pictures; a page has 96, screens have more
STATES = ("complete", "failed", "pending", "pruned")


def write(folder: Path, study: Study, record: SweepRun, attempts: Sequence[TrialRun], winner: Winner | None) -> None:
    """Writes report.html and the figures that it shows below `folder`."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    shown = {}
    for title, figure in _figures(study, record, attempts):
        image = io.BytesIO()
        figure.savefig(image, dpi=DPI)
        (folder / "figures" / f"{title.lower().replace(' ', '_')}.png").write_bytes(image.getvalue())
        shown[title] = base64.b64encode(image.getvalue()).decode(), round(96 * figure.get_figwidth())
    ranked = rank(attempts, study.objective)
    others = [attempt for attempt in attempts if attempt not in ranked]
    commands = [study.overrides, *([f"sweep.resume={record.id[:8]}", *one["overrides"]] for one in record.changes)]
    template = jinja2.Template(PAGE.read_text("utf-8"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = template.render(
        study=study,
        facts=_facts(study, attempts),
        commands=[hide(f"python -m mnist_exp -m {shlex.join(overrides)}") for overrides in commands],
        keys=list(dict.fromkeys(parameter.key for parameter in study.space.parameters)),
        rows=list(_rows(study, ranked)),
        others=sorted(others, key=lambda attempt: STATES.index(attempt.outcome)),
        winner=winner,
        openings=0 if winner else len(record.openings()),
        figures=shown,
        format_values=format_values,
        format_duration=format_duration,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _figures(study: Study, record: SweepRun, attempts: Sequence[TrialRun]) -> Iterator[tuple[str, Figure]]:
    space, objective = study.space, study.objective
    best = rank(attempts, objective)
    yield "Progress", figures.progress(attempts, objective)
    if not best:
        return
    yield "Confusion matrices of the best", figures.confusions([_confusion(study, record, a) for a in best[:SHOWN]])
    if len(shares := _shares(study, attempts)) > 1:
        yield "Importance", figures.importance(space, shares)
    yield "Parallel coordinates", figures.parallel(space, [a for a in attempts if a.has_score], objective)
    yield "Slices", figures.slices(space, attempts, objective)


def _shares(study: Study, attempts: Sequence[TrialRun]) -> dict[str, float]:
    """Returns the importance of each parameter. Far worse scores are limited, because they would explain it all."""
    done, objective = [trial for trial in attempts if trial.has_score], study.objective
    scores = [attempt.score for attempt in done if attempt.score is not None]
    if len(set(scores)) < 2:
        return {}
    clipped = np.clip(scores, *figures.limits(scores, objective)).tolist()
    return importances(study.space, objective, [(a.values, score) for a, score in zip(done, clipped, strict=True)])


def _confusion(study: Study, record: SweepRun, attempt: TrialRun) -> figures.Confusion:
    """Returns the confusion matrix of the validation images; with several seeds that of the best one."""
    run_id = attempt.model_run_id
    with download(record.store, run_id, "reports/val.json") as path:
        found = json.loads(path.read_text())
    seed = ", its best seed" if study.settings.executions > 1 else ""
    title = f"trial {attempt.number}, {found['metrics']['accuracy']:.2%} right{seed}"
    return title, np.array(found["confusion"]), list(found["per_class"])


def _facts(study: Study, attempts: Sequence[TrialRun]) -> str:
    settings, outcomes = study.settings, [attempt.outcome for attempt in attempts]
    counts = ", ".join(f"{outcomes.count(state)} {state}" for state in STATES if state in outcomes)
    seeds = "one seed per trial" if settings.executions == 1 else f"the mean of {settings.executions} seeds per trial"
    seconds = format_duration(sum(attempt.seconds for attempt in attempts))
    how = f"{study.algorithm}, {settings.direction}imize {settings.objective}, {seeds}"
    return f"{len(attempts)} trials: {counts or 'none'}; {how}; {seconds} of trials in all."


def _rows(study: Study, best: Sequence[TrialRun]) -> Iterator[tuple[TrialRun, str, np.ndarray | None, dict[str, str]]]:
    """Returns the rows of the leaderboard: trial, interval in words, bar and values by key.

    bar: where interval, score and interval lie, in percent of what the better half spans.
    """
    intervals = [_interval(study, attempt) for attempt in best]
    shown = intervals[: max(10, len(best) // 2)]
    low, high = figures.limits([end for _, ends in shown for end in ends], study.objective)
    for attempt, (words, ends) in zip(best, intervals, strict=True):
        places = 100 * (np.array(ends) - low) / (high - low)
        bar = places.clip(0, 100).round(1) if 0 <= places[1] <= 100 else None
        yield attempt, words, bar, {p.key: shorten(attempt.values[p.name]) for p in study.space.active(attempt.values)}


def _interval(study: Study, attempt: TrialRun) -> tuple[str, tuple[float, float, float]]:
    """Returns the interval of a score in words, and its lower end, the score, its upper end: the score if not known.

    The interval is that of the accuracy. It does not apply to a score that is another metric or of another epoch.
    """
    score, spread = attempt.score or 0.0, attempt.spread
    if spread is not None:
        return f"± {spread:.4f}", (score - spread, score, score + spread)
    low, high = (attempt.metrics.get(f"val/accuracy_{end}") for end in ("low", "high"))
    if study.settings.executions > 1 or low is None or high is None:
        return "", (score, score, score)
    known = study.settings.objective == "val/accuracy" and attempt.outcome == "complete"
    return f"{low:.4f} - {high:.4f}", (low, score, high) if known else (score, score, score)
