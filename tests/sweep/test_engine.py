"""The engine on an executor whose trials end, die or hang as a test wants it; nothing is trained."""

import random
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, field

import pytest
from light_trials import study_of

from mnist_exp.sweep import engine as engine_module
from mnist_exp.sweep.engine import LOST, Engine
from mnist_exp.sweep.executors.base import Preempted
from mnist_exp.sweep.pruners.median import MedianPruner
from mnist_exp.sweep.samplers import create_sampler
from mnist_exp.sweep.trial import Failure, Outcome, Proposal


@dataclass
class Slots:
    """Trials end in a random order; what becomes of one is told by its number and attempt."""

    width: int
    fate: object
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    pending: dict = field(default_factory=dict)
    retry_alone: bool = True
    max_deaths: int = 2
    comings: dict = field(default_factory=dict)  # number of workers from so many looks on
    looks: int = 0
    most: int = 0
    beside: dict = field(default_factory=dict)  # how many others ran when an attempt was submitted
    attempts: dict = field(default_factory=dict)
    killed: list = field(default_factory=list)
    starts: bool = True  # whether a trial begins when it is submitted

    def refresh(self):
        self.looks += 1
        self.width = self.comings.get(self.looks, self.width)

    def submit(self, fn, job):
        number = job.number
        self.attempts[number] = self.attempts.get(number, 0) + 1
        self.beside[number, self.attempts[number]] = len(self.pending)
        future = Future()
        if self.starts:
            future.set_running_or_notify_cancel()
        self.pending[future] = number
        self.most = max(self.most, len(self.pending))
        assert len(self.pending) <= self.width
        return future

    def kill(self, future):
        self.killed.append(self.pending.pop(future))

    def end_one(self):
        future = self.rng.choice(list(self.pending))
        number = self.pending.pop(future)
        fate = self.fate(number, self.attempts[number])
        if isinstance(fate, BaseException):
            future.set_exception(fate)
        else:
            future.set_result(fate)


@dataclass
class Book:
    """Remembers what it was told."""

    begun: list = field(default_factory=list)
    losses: list = field(default_factory=list)
    failures: dict = field(default_factory=dict)
    outcomes: dict = field(default_factory=dict)

    def check(self) -> None:
        pass

    def reuse(self, proposal):
        return None

    def begin(self, proposal):
        self.begun.append(proposal.number)
        return proposal

    def lost(self, job, why):
        self.losses.append(job.number)

    def failed(self, job, failure):
        self.failures[job.number] = failure.message

    def ended(self, proposal, outcome):
        self.outcomes[proposal.number] = outcome


def good(number, attempt):
    return Outcome(score=number / 100, curve=(number / 100,))


def drive(
    monkeypatch, fate=good, width=3, algorithm="random", on_end=lambda engine, ended: None, slots=None, **settings
):
    """An engine run to its end; on_end is told of it with the number of trials that ended, before each one does."""
    study = study_of(algorithm, **{"max_trials": 12, **settings})
    slots, book = slots or Slots(width, fate), Book()
    monkeypatch.setattr(engine_module, "TICK", 0.0)

    def wait(running, *args):
        on_end(engine, len(book.outcomes))
        slots.end_one()
        return type("Waited", (), {"done": {future for future in running if future.done()}})

    monkeypatch.setattr(engine_module, "wait", wait)
    engine = Engine(study.settings, create_sampler(study), slots, lambda job: None, book)
    engine.run()
    return engine, slots, book


def test_every_trial_is_run_and_told_with_the_window_full_and_no_more(monkeypatch):
    engine, slots, book = drive(monkeypatch)
    assert sorted(book.outcomes) == sorted(book.begun) == list(range(12))
    assert slots.most == 3
    assert engine.stop_reason == "done"
    assert all(trial.status == "COMPLETED" for trial in engine.sampler.trials.values())


def test_a_space_without_further_values_ends_the_sweep(monkeypatch):
    engine, _, book = drive(monkeypatch, algorithm="grid", max_trials=100)
    assert engine.stop_reason == "exhausted"
    assert len(book.outcomes) == 12


def test_a_lost_worker_costs_its_trial_one_try_and_the_second_is_alone(monkeypatch):
    def fate(number, attempt):
        return BrokenExecutor() if number == 4 and attempt == 1 else good(number, attempt)

    _, slots, book = drive(monkeypatch, fate)
    assert book.losses == [4]
    assert slots.attempts == {number: 2 if number == 4 else 1 for number in range(12)}
    assert slots.beside[4, 2] == 0
    assert book.outcomes[4].score == 0.04
    assert not book.failures


def test_a_trial_that_kills_its_worker_twice_is_the_culprit_and_no_other(monkeypatch):
    def fate(number, attempt):
        return BrokenExecutor() if number == 4 else good(number, attempt)

    _, _, book = drive(monkeypatch, fate)
    assert book.failures == {4: LOST.format(2)}
    assert book.outcomes[4].failure.message == LOST.format(2)
    assert len(book.outcomes) == 12
    assert sum(outcome.score is not None for outcome in book.outcomes.values()) == 11


def on_a_cluster(fate, **keys):
    return Slots(3, fate, retry_alone=False, max_deaths=3, **keys)


def test_on_a_cluster_a_trial_is_tried_again_beside_others(monkeypatch):
    def fate(number, attempt):
        return BrokenExecutor() if number == 4 and attempt <= 2 else good(number, attempt)

    _, slots, book = drive(monkeypatch, slots=on_a_cluster(fate))
    assert book.losses == [4, 4]
    assert slots.beside[4, 2] == 2
    assert not book.failures
    assert len(book.outcomes) == 12


def test_on_a_cluster_the_third_death_is_the_trials_fault(monkeypatch):
    def fate(number, attempt):
        return BrokenExecutor() if number == 4 else good(number, attempt)

    _, _, book = drive(monkeypatch, slots=on_a_cluster(fate))
    assert book.failures == {4: LOST.format(3)}


def test_nobody_is_to_blame_for_a_disturbance_however_often(monkeypatch):
    def fate(number, attempt):
        return Preempted() if attempt <= 5 else good(number, attempt)

    _, _, book = drive(monkeypatch, slots=on_a_cluster(fate), max_trials=4)
    assert sorted(book.losses) == sorted(5 * [0, 1, 2, 3])
    assert not book.failures
    assert {number: outcome.score for number, outcome in book.outcomes.items()} == {n: n / 100 for n in range(4)}


def test_the_window_follows_the_workers_and_waits_while_there_are_none(monkeypatch):
    widths = []
    slots = on_a_cluster(good, comings={3: 5, 8: 1, 16: 0, 30: 2})

    def seen(engine, ended):
        widths.append((slots.width, len(engine.running)))

    _, _, book = drive(monkeypatch, slots=slots, on_end=seen, max_trials=30)
    assert sorted(book.outcomes) == list(range(30))
    assert {(3, 3), (5, 5), (1, 1), (2, 2)} <= set(widths)


def test_a_sweep_that_is_over_does_not_wait_for_workers(monkeypatch):
    _, _, book = drive(monkeypatch, slots=on_a_cluster(good, comings={4: 0}), max_trials=3)
    assert sorted(book.outcomes) == [0, 1, 2]


def test_two_workers_lost_at_once_are_both_tried_again_one_after_the_other(monkeypatch):
    def fate(number, attempt):
        return BrokenExecutor() if number in (1, 2) and attempt == 1 else good(number, attempt)

    _, slots, book = drive(monkeypatch, fate)
    assert sorted(book.losses) == [1, 2]
    assert (slots.beside[1, 2], slots.beside[2, 2]) == (0, 0)
    assert len(book.outcomes) == 12


def test_different_errors_do_not_stop_a_sweep(monkeypatch):
    def fate(number, attempt):
        return (
            Outcome(failure=Failure("ValueError", f"my_net.py:{number}", "no"))
            if number in (2, 3, 4, 5)
            else good(number, attempt)
        )

    engine, _, book = drive(monkeypatch, fate)
    assert engine.stop_reason == "done"
    assert len(book.outcomes) == 12


def test_the_same_error_again_and_again_stops_it_with_its_cause(monkeypatch):
    def fate(number, attempt):
        return (
            Outcome(failure=Failure("MemoryError", "my_net.py:8", f"too wide: {number}"))
            if number >= 3
            else good(number, attempt)
        )

    engine, _, book = drive(monkeypatch, fate, width=1)
    assert engine.stop_reason == "failures"
    assert [failure.message for failure in engine.failures] == [f"too wide: {number}" for number in (3, 4, 5)]
    assert len(book.outcomes) == 6


def test_an_error_between_good_trials_does_not_count_towards_the_limit(monkeypatch):
    def fate(number, attempt):
        return Outcome(failure=Failure("ValueError", "my_net.py:8", "odd")) if number % 2 else good(number, attempt)

    engine, _, book = drive(monkeypatch, fate, width=1)
    assert (engine.stop_reason, len(book.outcomes)) == ("done", 12)


def test_what_the_executor_itself_raises_is_recorded_as_the_trials_error(monkeypatch):
    def fate(number, attempt):
        return TypeError("cannot pickle") if number == 5 else good(number, attempt)

    _, _, book = drive(monkeypatch, fate)
    assert book.failures == {5: "cannot pickle"}
    assert len(book.outcomes) == 12


def test_stopping_lets_running_trials_end_and_starts_no_other(monkeypatch):
    def stop(engine, ended):
        engine.stopping = ended == 4 or engine.stopping

    engine, slots, book = drive(monkeypatch, on_end=stop)
    assert engine.stop_reason == "stopped"
    assert len(book.outcomes) == len(book.begun) == 7  # four, and the three that ran by then
    assert not slots.pending


def test_after_its_time_a_sweep_starts_nothing_more(monkeypatch):
    def pass_time(engine, ended):
        engine._begun -= 10

    engine, _, book = drive(monkeypatch, timeout=45.0, on_end=pass_time)
    assert engine.stop_reason == "timeout"
    assert len(book.outcomes) == len(book.begun) == 7


def test_a_trial_that_hangs_is_killed_and_recorded(monkeypatch):
    study = study_of("random", max_trials=3, trial_timeout=5.0)
    slots, book, clock = Slots(3, good), Book(), [0.0]
    monkeypatch.setattr(engine_module.time, "monotonic", lambda: clock[0])

    def wait(running, *args):
        clock[0] += 30
        for future, number in list(slots.pending.items()):
            if number != 1:
                slots.pending.pop(future)
                future.set_result(good(number, 1))
        return type("Waited", (), {"done": {future for future in running if future.done()}})

    monkeypatch.setattr(engine_module, "wait", wait)
    engine = Engine(study.settings, create_sampler(study), slots, lambda job: None, book)
    engine.run()
    assert slots.killed == [1]
    assert "sweep.trial_timeout=5" in book.failures[1]
    assert sorted(book.outcomes) == [0, 1, 2]


def test_the_start_of_a_worker_does_not_count_towards_the_time_of_its_trial(monkeypatch):
    study = study_of("random", max_trials=1, trial_timeout=5.0)
    slots, book, clock = Slots(1, good, starts=False), Book(), [0.0]
    monkeypatch.setattr(engine_module.time, "monotonic", lambda: clock[0])

    def wait(running, *args):
        (future,) = running
        clock[0] += 1
        if clock[0] == 60.0:  # the libraries are imported
            future.set_running_or_notify_cancel()
        elif clock[0] == 70.0:
            future.set_result(good(slots.pending.pop(future), 1))
        return type("Waited", (), {"done": {future} if future.done() else set()})

    monkeypatch.setattr(engine_module, "wait", wait)
    Engine(study.settings, create_sampler(study), slots, lambda job: None, book).run()
    assert slots.killed == []
    assert book.outcomes[0].failure is None


def test_a_trial_that_never_begins_is_killed(monkeypatch):
    study = study_of("random", max_trials=1, trial_timeout=5.0)
    slots, book, clock = Slots(1, good, starts=False), Book(), [0.0]
    monkeypatch.setattr(engine_module.time, "monotonic", lambda: clock[0])

    def wait(running, *args):
        clock[0] += 30
        return type("Waited", (), {"done": set()})

    monkeypatch.setattr(engine_module, "wait", wait)
    Engine(study.settings, create_sampler(study), slots, lambda job: None, book).run()
    assert slots.killed == [0]
    assert clock[0] > engine_module.STARTUP


def test_abandoned_trials_are_killed_and_named():
    study = study_of("random")
    slots, book = Slots(2, good), Book()
    engine = Engine(study.settings, create_sampler(study), slots, lambda job: None, book)
    for proposal, _ in list(engine._next())[:1]:
        job = book.begin(proposal)
        engine.running[slots.submit(None, job)] = engine_module.Running(proposal, job, deaths=0, submitted=0.0)
    assert [job.number for job in engine.abandon()] == [0]
    assert slots.killed == [0]


@pytest.mark.parametrize(
    ("curves", "least", "expected"),
    [
        ([], 1, ()),
        ([(0.1, 0.2), (0.3, 0.4)], 3, ()),
        ([(0.1, 0.2), (0.3, 0.4), (0.5,)], 3, (0.3,)),
        ([(0.1, 0.2), (0.3, 0.4), (0.5, 0.9)], 3, (0.3, 0.4)),
    ],
)
def test_medians_reach_as_far_as_enough_siblings_did(curves, least, expected):
    assert MedianPruner(least, {None: list(curves)}).thresholds() == expected


def test_proposals_left_open_come_first(monkeypatch):
    study = study_of("random", max_trials=4)
    proposer = create_sampler(study)
    first = [proposer.ask() for _ in range(2)]
    assert all(isinstance(proposal, Proposal) for proposal in first)
    slots, book = Slots(1, good), Book()

    def wait(running, *args):
        slots.end_one()
        return type("Waited", (), {"done": set(running)})

    monkeypatch.setattr(engine_module, "wait", wait)
    engine = Engine(study.settings, proposer, slots, lambda job: None, book, proposed=2)
    engine.pending.extend(first)
    engine.run()
    assert book.begun == [0, 1, 2, 3]


def test_medians_are_those_of_curves_of_the_same_definition():
    pruner = MedianPruner(1)
    pruner.add((0.9, 0.8), definition=0.1)
    pruner.add((0.3, 0.2), definition=0.0)
    assert pruner.thresholds(0.0) == (0.3, 0.2)
    assert pruner.thresholds(0.2) == ()
