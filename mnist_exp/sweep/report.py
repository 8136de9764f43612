"""What a sweep found, as figures and one HTML file that needs nothing beside it."""

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from mnist_exp.evaluation import Evaluation
from mnist_exp.figures import DPI
from mnist_exp.sweep import figures
from mnist_exp.sweep.board import duration, said, short
from mnist_exp.sweep.oracles import importances
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.winner import Winner
from mnist_exp.tracking.sweeps import Attempt, SweepRecord, scored

SHOWN = 3  # best trials whose confusion matrices stand side by side


def write(folder: Path, study: Study, record: SweepRecord, attempts: Sequence[Attempt], winner: Winner | None) -> None:
    """report.html and the figures it shows, below `folder`."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    shown = {}
    for title, figure in _figures(study, record, attempts):
        image = io.BytesIO()
        figure.savefig(image, dpi=DPI)
        (folder / "figures" / f"{title.lower().replace(' ', '_')}.png").write_bytes(image.getvalue())
        shown[title] = base64.b64encode(image.getvalue()).decode()
    environment = jinja2.Environment(loader=jinja2.PackageLoader("mnist_exp.sweep", "."), autoescape=True)
    page = environment.get_template("report.html").render(**_words(study, attempts, winner), figures=shown)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _figures(study: Study, record: SweepRecord, attempts: Sequence[Attempt]) -> Iterator[tuple[str, Figure]]:
    settings, done = study.settings, scored(attempts)
    yield "Progress", figures.progress(attempts, settings.objective, settings.direction)
    if not done:
        return
    pairs = [(attempt.values, attempt.score) for attempt in done if attempt.score is not None]
    if shares := importances(study.space, settings.direction, pairs):
        yield "Importance", figures.importance(shares)
    yield "Parallel coordinates", figures.parallel(study.space, done, settings.direction)
    yield "Slices", figures.slices(study.space, done, settings.objective, settings.direction)
    if best := _evaluations(record, ranked(study, done)[:SHOWN]):
        yield "Confusion matrices of the best", figures.confusions(best)


def ranked(study: Study, attempts: Sequence[Attempt]) -> list[Attempt]:
    """The scored ones, best first; the first of equals."""
    sign = -1 if study.settings.direction == "max" else 1
    return sorted(scored(attempts), key=lambda attempt: (sign * (attempt.score or 0.0), attempt.number))


def _evaluations(record: SweepRecord, best: Sequence[Attempt]) -> list[tuple[str, Evaluation]]:
    """Of the validation images, from the predictions that the runs kept."""
    found = []
    for attempt in best:
        run_id = attempt.tags.get("model_run", attempt.run_id)
        arrays = np.load(record.download(run_id, "predictions.npz"))
        probabilities = arrays["val_probabilities"].astype(np.float32)
        names = list(json.loads(record.download(run_id, "reports/val.json").read_text()))[: probabilities.shape[1]]
        evaluation = Evaluation(arrays["val_labels"].astype(np.int64), probabilities, tuple(names))
        found.append((f"trial {attempt.number}, {evaluation.accuracy:.2%} right", evaluation))
    return found


def _words(study: Study, attempts: Sequence[Attempt], winner: Winner | None) -> dict[str, Any]:
    settings, done = study.settings, ranked(study, attempts)
    several = settings.executions > 1
    names = list(dict.fromkeys(parameter.key for parameter in study.space.parameters))
    states = [attempt.outcome for attempt in attempts]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("scored", "pruned", "failed") if state in states)
    seeds = f"{settings.executions} seeds a trial" if several else "one seed a trial"
    return {
        "name": study.name,
        "facts": f"{len(attempts)} trials: {counts}. {study.algorithm}, {settings.direction} {settings.objective}, "
        f"{seeds}. Command: {' '.join(study.overrides)}",
        "objective": settings.objective,
        "uncertainty": "spread over seeds" if several else "95% interval of accuracy",
        "names": names,
        "rows": [_row(study, attempt, names) for attempt in done],
        "others": [
            {
                "number": attempt.number,
                "outcome": attempt.outcome,
                "values": said(attempt.values),
                "reason": attempt.error or f"below the median of its siblings after epoch {attempt.epochs}",
            }
            for attempt in attempts
            if attempt.outcome in ("failed", "pruned")
        ],
        "winner": winner,
        "results": _results(winner) if winner else {},
    }


def _row(study: Study, attempt: Attempt, names: Sequence[str]) -> dict[str, Any]:
    tokens = study.space.assigned(attempt.values)
    low, high = (attempt.metrics.get(f"val/accuracy_{end}") for end in ("low", "high"))
    interval = f"± {attempt.spread:.4f}" if attempt.spread is not None else ""
    if not interval and low is not None and high is not None:
        interval = f"{low:.4f} - {high:.4f}"
    return {
        "number": attempt.number,
        "score": f"{attempt.score:.4f}",
        "interval": interval,
        "cells": [_cell(tokens.get(name)) for name in names],
        "epochs": attempt.epochs,
        "time": duration(attempt.seconds),
    }


def _cell(token: str | None) -> str:
    if token is None:
        return ""
    try:
        return short(float(token)) if "." in token or "e" in token else token
    except ValueError:
        return token


def _results(winner: Winner) -> dict[str, Mapping[str, float]]:
    sources = {"validation": (winner.attempt.metrics, "val"), "test": (winner.test, "test")}
    return {
        words: {
            "accuracy": metrics[f"{split}/accuracy"],
            "low": metrics[f"{split}/accuracy_low"],
            "high": metrics[f"{split}/accuracy_high"],
        }
        for words, (metrics, split) in sources.items()
    }
