"""The winner of a sweep: chosen on validation images, checked, scored on the test set, and written as best.yaml."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import RunConfig, format_value
from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.load import load_splits
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.evaluation.predictions import digests_of
from mnist_exp.sweep.race import Confirmed, confirmed
from mnist_exp.sweep.study import Study
from mnist_exp.tracking import tags
from mnist_exp.tracking.stored_run import TrialRun, fetch_run, read_run
from mnist_exp.tracking.sweep_run import SweepRun

# How far the stored model's probabilities may lie from those after its training, see `_difference`. Above SAME it is
# said, above SIMILAR refused: another processor, or TF32 on a GPU, changes the third digit of some probabilities.
SAME, SIMILAR = 1e-3, 1e-2


@dataclass(frozen=True)
class Winner:
    """The best trial.

    test: its metrics on the test set. config: an experiment file that trains the model that was scored again.
    opened: the number of the trial and the test accuracy of each model that was evaluated on the test set, in this
    order; None if not known.
    difference: of its probabilities from those after its training; None if it was scored by an earlier process.
    confirmed: the candidates of sweep.confirm, the winner first; empty without it.
    """

    trial: TrialRun
    test: Mapping[str, float]
    config: str
    opened: Sequence[tuple[int | None, float | None]]
    difference: float | None = None
    confirmed: Sequence[Confirmed] = ()

    @property
    def openings(self) -> str:
        """The models that were evaluated on the test set, in words."""
        trials = ("an unknown trial" if number is None else f"trial {number}" for number, _ in self.opened)
        scores = ("" if accuracy is None else f" ({accuracy:.2%})" for _, accuracy in self.opened)
        return ", ".join(trial + score for trial, score in zip(trials, scores, strict=True))

    @property
    def note(self) -> str:
        """What is said if the stored model answers a little otherwise than after its training, else empty."""
        if self.difference is None or self.difference <= SAME:
            return ""
        what = f"the probabilities of the stored model differ by {self.difference:.2g} from those after its training"
        return f"{what}, as they do on another kind of processor"


def budget(trial: TrialRun) -> int:
    """Returns the epochs of the rung that a trial has reached; 0 if all trials train as long as their config says."""
    return trial.rung["epochs"] if trial.rung else 0


def rank(trials: Iterable[TrialRun], objective: Objective) -> list[TrialRun]:
    """Returns the complete trials of the largest budget, the best first; of equal ones the first trial.

    A trial that was pruned, or that Hyperband did not promote, cannot be compared with them. One that is excluded may
    not win.
    """
    complete = [t for t in trials if t.outcome == "complete" and t.score is not None and not t.excluded]
    most = max(map(budget, complete), default=0)
    comparable = [trial for trial in complete if budget(trial) == most]
    return sorted(comparable, key=lambda trial: (objective.rank(trial.score or 0.0), trial.number))


def score_winner(study: Study, record: SweepRun, trials: Sequence[TrialRun]) -> Winner | None:
    """Scores the best trial on the test set, unless that was done; None if no trial is complete.

    Raises TrackingError, before the test set is opened, if the stored model is not the one that was trained.
    """
    ranked = rank(trials, study.objective)
    if not ranked:
        return None
    best, why, candidates = ranked[0], "", _confirm(study, record, ranked)
    if candidates:
        best = candidates[0].trial
        why = f", {candidates[0].mean:.4f} as the mean of {len(candidates[0].scores)} new seeds"
    config, difference = _winning_config(study, record, best), None
    if not any(opening.metrics for opening in record.openings() if opening.model_run == best.model_run_id):
        difference = _open_test_set(config, record, best)
    openings = record.openings()
    (test,) = (opening.metrics for opening in openings if opening.model_run == best.model_run_id)
    numbers = {trial.model_run_id: trial.number for trial in trials}
    opened = [(numbers.get(one.model_run), one.metrics.get("test/accuracy")) for one in openings]
    comment = f"Trial {best.number} of the sweep {study.name}: {study.objective.metric} {best.score:.4f}{why}."
    return Winner(best, test, config.experiment_file(comment), opened, difference, candidates)


def _confirm(study: Study, record: SweepRun, ranked: Sequence[TrialRun]) -> list[Confirmed]:
    """Returns the candidates of sweep.confirm, the winner first; none without it, or if there is only one trial.

    Raises TrackingError if no new seed has confirmed the winner.
    """
    settings = study.settings
    if settings.confirm is None or len(ranked) < 2:
        return []
    found = confirmed(ranked[: settings.confirm], record.confirmations(), settings.confirm_seeds, study.objective)
    if not (found and found[0].scores):
        rule = f"must have a score with a new seed, because of sweep.confirm={settings.confirm}"
        remedy = "its trainings failed, and the test set was not opened; resume with sweep.confirm=null to do without"
        raise TrackingError(Problem(f"trial {(found[0].trial if found else ranked[0]).number}", rule, remedy=remedy))
    return found


def save(winner: Winner, path: str) -> None:
    """Writes the winner's config to a file. Raises TrackingError if it cannot be written."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(winner.config, encoding="utf-8")
    except OSError as error:
        remedy = f"{error}; the sweep keeps the config as best.yaml"
        raise TrackingError(Problem("sweep.save_best", "must be a file that can be written", path, remedy)) from error


def _winning_config(study: Study, record: SweepRun, best: TrialRun) -> RunConfig:
    """Returns the config that the winning model was trained with: its rung's epochs, and its seed of several."""
    config = study.configs.of(best.values)
    changed = {"training.epochs": best.rung["epochs"]} if best.rung else {}
    if study.settings.executions > 1:
        changed["seed"] = int(fetch_run(record.store, best.model_run_id).params["seed"])
    return config.with_values(changed)


def _open_test_set(config: RunConfig, record: SweepRun, best: TrialRun) -> float:
    """Evaluates the model of the best trial on the test set and records it. Returns what `_difference` does.

    Before, it draws the figures of the trial, on its validation images.
    """
    from mnist_exp.tracking.registry import load_model
    from mnist_exp.tracking.run_figures import draw_run
    from mnist_exp.training.augmentation import show_changes
    from mnist_exp.training.evaluate import evaluate
    from mnist_exp.training.trained import evaluate_unseen

    model_run = best.model_run_id
    splits, model = load_splits(config), load_model(record.store.uri, model_run)
    answers = evaluate_unseen(model, splits).probabilities
    difference = _difference(record, best, answers, splits.validation)
    if not difference <= SIMILAR:
        rule = f"must answer as after its training, with probabilities within {SIMILAR:g}"
        remedy = "its files were changed, or this machine computes otherwise; the test set was not opened"
        raise TrackingError(Problem(f"the stored model of trial {best.number}", rule, round(difference, 4), remedy))
    assert splits.test is not None
    seen = show_changes(config, splits)
    draw_run(record.store, fetch_run(record.store, model_run), replace(splits, test=None), model, seen)
    step = record.open_test_set(model_run)
    evaluation = evaluate(model, splits.test, splits.class_names)
    test = {f"test/{key}": value for key, value in evaluation.metrics.items()}
    facts = {tags.TESTED: model_run, tags.BEST_TRIAL: str(best.number), tags.BEST_RUN: best.run_id}
    record.log(test, step, {**facts, tags.NOTE: _describe(best, test)})
    return difference


def _describe(best: TrialRun, test: Mapping[str, float]) -> str:
    """Returns the text that MLflow shows on the page of the sweep."""
    accuracy, low, high = (test[f"test/accuracy{end}"] for end in ("", "_low", "_high"))
    values = " ".join(f"{name}={format_value(value)}" for name, value in best.values.items())
    return (
        f"**Winner** trial {best.number}: `{values}`\n\n"
        f"**Test** {accuracy:.2%} of the images are right, 95% interval {low:.2%} - {high:.2%}\n\n"
        "Among the artifacts `report.html` shows every trial, and `best.yaml` trains the winner again."
    )


def _difference(record: SweepRun, best: TrialRun, probabilities: np.ndarray, validation: ImageSet) -> float:
    """Returns how far the probabilities of the validation images lie from the stored ones.

    It is the total variation distance, from 0 to 1, as a mean over the images; infinite if other images were stored.
    """
    stored = read_run(record.store, fetch_run(record.store, best.model_run_id)).predictions or {}
    if not np.array_equal(stored.get("val_digests", ()), digests_of(validation)):
        return float("inf")
    before = stored["val_probabilities"].astype(np.float64)
    return float(np.abs(probabilities - before).sum(axis=1).mean() / 2)
