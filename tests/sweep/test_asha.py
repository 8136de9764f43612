"""Asynchronous successive halving: the rule, its record, and trials that it ends."""

from itertools import count

import optuna
import pytest
from light_trials import light, study_of
from test_kills import Silent

from mnist_exp.config.objective import Objective
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.sweep.executors.base import Inline
from mnist_exp.sweep.pruners.asha import goes_on, rungs
from mnist_exp.sweep.samplers import create_sampler
from mnist_exp.sweep.search import search
from mnist_exp.sweep.worker import TrialListener
from mnist_exp.tracking.rungs import Rungs
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.stored_run import read_metric_history
from mnist_exp.tracking.sweep_run import SweepRun

ACCURACY, LOSS = Objective("val/accuracy", "max"), Objective("val/loss", "min")


@pytest.fixture
def store(tracking):
    return connect(tracking)


@pytest.fixture
def at_rungs(store):
    record = SweepRun.create(store, "sweeps", "study", {"settings": {}})
    return Rungs(store, record.id)


@pytest.mark.parametrize(
    ("epochs", "first", "factor", "expected"),
    [
        (1, 1, 4, ()),
        (2, 1, 4, (1,)),
        (10, 1, 4, (1, 4)),
        (16, 1, 4, (1, 4)),
        (17, 1, 4, (1, 4, 16)),
        (9, 2, 2, (2, 4, 8)),
    ],
)
def test_rungs_lie_below_the_last_epoch(epochs, first, factor, expected):
    assert rungs(epochs, first, factor) == expected


@pytest.mark.parametrize(
    ("score", "seen", "expected"),
    [
        (0.1, [], True),  # the first one
        (0.2, [0.1], True),
        (0.1, [0.2], False),
        (0.2, [0.2], True),  # as good as the best
        (0.8, [0.9, *[0.1] * 5], False),  # of seven, one goes on
        (0.8, [0.9, *[0.1] * 6], True),  # of eight, two
        (0.8, [0.9, 0.85, *[0.1] * 5], False),
    ],
)
def test_a_trial_goes_on_if_it_is_among_the_best_quarter_of_its_rung(score, seen, expected):
    assert goes_on(score, seen, 4, ACCURACY) is expected
    assert goes_on(-score, [-other for other in seen], 4, LOSS) is expected


def test_a_rung_has_seen_the_trials_before(at_rungs):
    asked = []

    def decide(number, score, epoch=1):
        return at_rungs.decide(epoch, number, score, lambda seen: not asked.append(sorted(seen)) and len(seen) < 2)

    assert decide(0, 0.5)
    assert decide(3, 0.7)
    assert not decide(1, 0.9)
    assert decide(1, 0.9, epoch=4)
    assert asked == [[], [0.5], [0.5, 0.7], []]


@pytest.mark.parametrize("answer", [True, False])
def test_what_a_rung_has_decided_is_not_decided_again(at_rungs, answer):
    """A trial whose worker was killed is run again, perhaps with another score, among others."""
    assert at_rungs.decide(1, 0, 0.5, lambda seen: answer) is answer
    for number in (1, 2):
        at_rungs.decide(1, number, 0.9, lambda seen: True)
    assert at_rungs.decide(1, 0, 0.6, lambda seen: pytest.fail("asked again")) is answer
    assert at_rungs.decide(1, 3, 0.1, lambda seen: sorted(seen) == [0.5, 0.9, 0.9])


class Away:
    """Rungs of a store that does not answer."""

    def decide(self, *given):
        raise TrackingError(Problem("http://server", "does not answer"))


def test_a_store_that_is_away_ends_no_trial(tracking, store):
    study = study_of("asha", max_trials=1)
    record = SweepRun.create(store, tracking.experiment, study.name, study.to_record())
    heard = []

    def work(job):
        listener = TrialListener(job, None, Away())
        heard.append((job.rungs, listener.on_epoch(1, {"val_accuracy": 0.1})))
        return light(job)

    search(study, record, tracking, Inline(), Silent(), work)
    assert heard == [((1, 2, 4), False)]


def test_rungs_end_trials_and_nothing_else(tracking, store):
    """The config of a pruned trial is that of the full training, and a resumed sampler knows where it ended."""
    study = study_of("asha", max_trials=12)
    record = SweepRun.create(store, tracking.experiment, study.name, study.to_record())
    jobs = []
    search(study, record, tracking, Inline(), Silent(), lambda job: jobs.append(job) or light(job))
    assert {job.config.values["training"]["epochs"] for job in jobs} == {8}
    trials = record.trials()
    pruned = {trial.number: trial.epochs for trial in trials if trial.outcome == "pruned"}
    assert set(pruned.values()) <= {1, 2, 4}
    sampler = create_sampler(study)
    sampler.restore(trials)
    assert sampler.pruned_at == {f"{number:04d}": epoch for number, epoch in pruned.items()}
    sampler._tell_optuna()
    told = sampler._study.get_trials()
    for number, epoch in pruned.items():
        assert told[number].state == optuna.trial.TrialState.PRUNED
        assert told[number].intermediate_values == {epoch: trials[number].score}
    assert [trial.value for trial in told if trial.state == optuna.trial.TrialState.COMPLETE] == [
        trial.score for trial in trials if trial.outcome == "complete"
    ]


@pytest.mark.parametrize("limit", [1, 20])
def test_no_trial_starts_when_the_epochs_are_trained_also_after_a_resume(tracking, store, limit):
    study = study_of("asha", max_trials=100, max_epochs=limit)
    record = SweepRun.create(store, tracking.experiment, study.name, study.to_record())
    for attempt in count():
        engine = search(study, record, tracking, Inline(), Silent(), light)
        trials = record.trials()
        trained = sum(trial.epochs for trial in trials)
        assert trained - trials[-1].epochs < limit <= trained
        assert (engine.stop_reason, engine.epochs) == ("epochs", trained)
        if attempt:
            break
    assert len(read_metric_history(store, record.id, "trials/scored")) == len(trials)
