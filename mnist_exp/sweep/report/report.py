"""The report of a sweep: one HTML file that needs no other, and its charts as pictures."""

import random
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mnist_exp.evaluation.page import Chart, draw, render
from mnist_exp.evaluation.statistics import correct_all, test_pairs
from mnist_exp.secrets import hide
from mnist_exp.sweep.display import format_values, shorten
from mnist_exp.sweep.pruners import asha
from mnist_exp.sweep.report import charts
from mnist_exp.sweep.samplers.importance import importances
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.winner import Winner, rank
from mnist_exp.terminal import format_duration
from mnist_exp.tracking import tags
from mnist_exp.tracking.requests import read_requests
from mnist_exp.tracking.stored_run import TrialRun, fetch_run, read_report, read_runs
from mnist_exp.tracking.sweep_run import SweepRun
from mnist_exp.tracking.views import page_of_run

PAGE = Path(__file__).with_name("report.html")
SHOWN = 3  # best trials whose confusion matrices stand side by side
LEADERS = 5  # trials that are tested against the best
CURVES = 100  # trials whose curves are drawn: the best ones
# Samples of the trials that show how far importance can be trusted, each with a smaller forest: it takes seconds.
RESAMPLES, FEW_TREES = 8, 12
PRUNED = {
    "asha": "not among the best that its rung had seen after epoch %d",
    "median": "worse than the median of its siblings after epoch %d",
}
STATES = ("complete", "failed", "infeasible", "pending", "pruned")


def write(folder: Path, study: Study, record: SweepRun, attempts: Sequence[TrialRun], winner: Winner | None) -> None:
    """Writes report.html, and its charts as pictures, below `folder`."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    drawn = list(_charts(study, record, attempts, winner))
    for chart in drawn:
        draw(folder / "figures" / f"{chart.title.lower().replace(' ', '_')}.png", chart.spec)
    ranked = rank(attempts, study.objective)
    others = [attempt for attempt in attempts if attempt not in ranked]
    commands = [study.overrides, *([f"sweep.resume={record.id[:8]}", *o] for o in _resumed(record))]
    page = render(
        PAGE,
        drawn,
        study=study,
        facts=_facts(study, attempts),
        commands=[hide(f"python -m mnist_exp -m {shlex.join(overrides)}") for overrides in commands],
        requests=[asked for asked in read_requests(record.fetch()) if asked.answer],
        keys=list(dict.fromkeys(parameter.key for parameter in study.space.parameters)),
        rows=list(_rows(study, ranked)),
        pruned=PRUNED["asha" if study.settings.asha else "median"],
        places={trial.number: place for place, trial in enumerate(ranked, 1)},
        links=_links(record, attempts),
        others=sorted(others, key=lambda attempt: STATES.index(attempt.outcome)),
        winner=winner,
        leaders=_compare_leaders(study, record, ranked),
        openings=0 if winner else len(record.openings()),
        format_values=format_values,
        format_duration=format_duration,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _resumed(record: SweepRun) -> Iterator[Sequence[str]]:
    """The overrides of each process that has resumed the sweep and changed something."""
    return (change["overrides"] for change in record.changes if "request" not in change)


def _charts(study: Study, record: SweepRun, attempts: Sequence[TrialRun], winner: Winner | None) -> Iterator[Chart]:
    """Yields the charts of the page."""
    space, objective = study.space, study.objective
    best, done = rank(attempts, objective), [trial for trial in attempts if trial.has_score]
    if not done:
        return
    scores = [trial.score for trial in done if trial.score is not None]
    edges, links = charts.limits(scores, objective), _links(record, attempts)
    sizes = {trial.number: int(trial.tags[tags.PARAMETERS]) for trial in done if tags.PARAMETERS in trial.tags}
    first = winner.trial if winner else best[0] if best else None
    trials = charts.frame(done, space, first, sizes, links)
    inside = [trial for trial in done if space.holds(trial.values)]
    better = "higher" if objective.direction == "max" else "lower"
    yield Chart(
        "Progress",
        charts.progress(trials, objective, edges),
        f"Each point is a trial, and {better} is better. Far worse ones lie at the edge. A click opens it in MLflow.",
    )
    drawn = [*best, *(trial for trial in done if trial not in best)][:CURVES]
    if found := {trial.number: curve for trial in drawn if (curve := record.curve(trial.run_id, objective.metric))}:
        settings = study.settings
        longest = max(map(len, found.values()))
        rungs = asha.rungs(longest, settings.first_rung, settings.factor or asha.FACTOR) if settings.asha else ()
        note = "The dashed lines are the rungs, where trials that are not among the best end." if rungs else ""
        yield Chart("Curves", charts.curves(found, trials, objective, edges, rungs), note)
    if len(set(sizes.values())) > 1:
        note = "On the dashed front no trial is both smaller and better."
        yield Chart("Accuracy against parameters", charts.front(trials, objective, edges), note)
    if best:
        matrices = [_confusion(study, record, trial) for trial in best[:SHOWN]]
        yield Chart(
            "Confusion matrices of the best", charts.confusions(matrices), "Validation images; true classes in rows."
        )
    if len(shares := _shares(study, inside)) > 1:
        ranges = _ranges(study, inside, shares)
        yield Chart("Importance", charts.importance(shares, ranges), _trust(len(inside), shares, ranges))
    if inside and space.parameters:
        shown = trials[trials.trial.isin([trial.number for trial in inside])]
        yield Chart(
            "Parallel coordinates",
            charts.parallel(shown, inside, space, objective, edges),
            "Each line is a trial, and the dark ones are good. The one below the pointer stands out.",
        )
        yield Chart(
            "Slices",
            charts.slices(shown, inside, space, objective, edges),
            "The same trials, one parameter at a time.",
        )


def _links(record: SweepRun, attempts: Sequence[TrialRun]) -> dict[int, str]:
    """The pages of the trials in MLflow."""
    return {trial.number: page_of_run(record.store, record.run.experiment_id, trial.run_id) for trial in attempts}


def _shares(study: Study, done: Sequence[TrialRun], trees: int = 64) -> dict[str, float]:
    """Returns the importance of each parameter. Far worse scores are limited, because they would explain it all."""
    objective = study.objective
    scores = [trial.score for trial in done if trial.score is not None]
    if len(set(scores)) < 2:
        return {}
    clipped = np.clip(scores, *charts.limits(scores, objective)).tolist()
    scored = [(one.values, score) for one, score in zip(done, clipped, strict=True)]
    return importances(study.space, objective, scored, trees)


def _ranges(study: Study, done: Sequence[TrialRun], shares: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Returns between which shares the importance of each parameter lies in samples of the trials."""
    chance, found = random.Random(0), {name: [share] for name, share in shares.items()}
    for _ in range(RESAMPLES):
        again = _shares(study, chance.choices(list(done), k=len(done)), FEW_TREES)
        for name in found:
            found[name].append(again.get(name, 0.0))
    return {name: (min(several), max(several)) for name, several in found.items()}


def _trust(count: int, shares: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> str:
    """Says how far the importance can be trusted."""
    first, *others = sorted(shares, key=lambda name: -shares[name])
    low, high = ranges[first]
    text = (
        "How much of the differences between the scores each parameter explains (fANOVA). The black lines reach from "
        f"the least to the most in {RESAMPLES} samples drawn from these {count} trials: {first} explains {low:.0%} to "
        f"{high:.0%}"
    )
    if others and low <= max(ranges[name][1] for name in others):
        return f"{text}, so with so few trials it is not certain that it matters most."
    return f"{text}, and more than every other parameter in all of them."


def _compare_leaders(study: Study, record: SweepRun, ranked: Sequence[TrialRun]) -> list[str]:
    """Says what the intervals mean, and which of the best trials differ on the same images (McNemar, Holm)."""
    leaders = ranked[:LEADERS]
    if len(leaders) < 2 or study.settings.executions > 1:
        return []
    runs = read_runs(record.store, [fetch_run(record.store, trial.run_id) for trial in leaders])
    tests = test_pairs([run.predictions for run in runs], [(0, place) for place in range(1, len(runs))], "val")
    if not tests:
        return []
    images = next(iter(tests.values())).images
    sentences = [
        "The intervals are for the accuracy on other images of the same kind, as far as these "
        f"{images:,} validation images tell (Wilson, 95%). They do not hold what another seed would change, and not "
        "that the best of many trials is looked at."
    ]
    judged = dict(zip(tests, correct_all(list(tests.values())), strict=True))
    worse = [leaders[place].number for (_, place), test in judged.items() if test.verdict == "better"]
    alike = [leaders[place].number for (_, place), test in judged.items() if test.verdict != "better"]
    best = leaders[0].number
    if worse:
        sentences.append(
            f"On the same images trial {best} is better than {_trials(worse)} (McNemar's test, Holm's correction)."
        )
    if alike:
        sentences.append(
            f"These images do not show that trial {best} differs from {_trials(alike)}: choose among them by size or "
            "speed, or let sweep.confirm train them again with new seeds."
        )
    return sentences


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _confusion(study: Study, record: SweepRun, attempt: TrialRun) -> charts.Confusion:
    """Returns the confusion matrix of the validation images; with several seeds that of the best one."""
    found = read_report(record.store, attempt.model_run_id)
    seed = ", its best seed" if study.settings.executions > 1 else ""
    title = f"trial {attempt.number}, {found['metrics']['accuracy']:.2%} right{seed}"
    return title, np.array(found["confusion"]), list(found["per_class"])


def _facts(study: Study, attempts: Sequence[TrialRun]) -> str:
    settings, outcomes = study.settings, [attempt.outcome for attempt in attempts]
    counts = ", ".join(f"{outcomes.count(state)} {state}" for state in STATES if state in outcomes)
    seeds = "one seed per trial" if settings.executions == 1 else f"the mean of {settings.executions} seeds per trial"
    seconds = format_duration(sum(attempt.seconds for attempt in attempts))
    how = f"{study.algorithm}, {settings.direction}imize {settings.objective}, {seeds}"
    reused = sum(tags.REUSED in attempt.tags for attempt in attempts)
    more = f"; {reused} have the result of a run that was trained before" if reused else ""
    return f"{len(attempts)} trials: {counts or 'none'}; {how}; {seconds} of trials in all{more}."


def _rows(study: Study, best: Sequence[TrialRun]) -> Iterator[tuple[TrialRun, str, np.ndarray | None, dict[str, str]]]:
    """Returns the rows of the leaderboard: trial, interval in words, bar and values by key.

    bar: where interval, score and interval lie, in percent of what the better half spans.
    """
    intervals = [_interval(study, attempt) for attempt in best]
    shown = intervals[: max(10, len(best) // 2)]
    low, high = charts.limits([end for _, ends in shown for end in ends], study.objective)
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
