"""What people ask of a sweep while it runs, answered between trials that train nothing."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from light_trials import light, study_of
from spaces import parse
from test_kills import Silent

from mnist_exp.config.compose import PACKAGE_SOURCE
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import TrackingError
from mnist_exp.sweep.executors.base import Inline
from mnist_exp.sweep.search import search
from mnist_exp.sweep.steering import Steering
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial import Failure, Job, Outcome
from mnist_exp.sweep.trial_configs import TrialConfigs
from mnist_exp.sweep.winner import rank
from mnist_exp.sweep.worker import Cancelled, is_cancelled
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.requests import Answer, Change, read_requests, send_request, write_answer
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.sweep_run import SweepRun


class Driven:
    """A sweep of light trials, of which each may ask for something before it is trained.

    ask: called with the number of the trial and this object.
    """

    def __init__(self, study: Study, tracking: Tracking, ask: Callable[[int, "Driven"], None]) -> None:
        self.tracking, self.ask, self.store = tracking, ask, connect(tracking)
        self.record = SweepRun.create(self.store, "sweeps", "study", study.to_record())
        self.study, self.lines = study, list[str]()
        self.fails: set[int] = set()
        self.executor = Inline()

    def send(self, kind: Any, **arguments: Any) -> None:
        send_request(self.store, self.record.run, kind, arguments)
        self.steering.look(self.record.fetch())

    def work(self, job: Job) -> Outcome:
        self.ask(job.number, self)
        if is_cancelled.get()():
            raise Cancelled
        if job.number in self.fails:
            self.record.fail(job.run_id, "it should")
            return Outcome(failure=Failure("ValueError", "", "it should"))
        return light(job)

    def run(self) -> "Driven":
        self.steering = Steering(self.study, self.record, PACKAGE_SOURCE, lambda label, text: self.lines.append(text))
        self.steering.begin()
        self.engine = search(
            self.steering.study, self.record, self.tracking, self.executor, Silent(), self.work, self.steering
        )
        self.study = self.steering.study
        return self

    def resume(self) -> "Driven":
        """Runs what is left in the place of a process that has ended."""
        self.record.end("KILLED")
        self.record = SweepRun.resume(self.store, "latest")
        self.study = Study.from_record(self.record.record, self.store.whitelist)
        self.record.take_over()
        return self.run()

    def trials(self):
        return self.study.trials(self.record)

    def answers(self) -> list[tuple[bool, str]]:
        asked = read_requests(self.record.fetch())
        return [(one.answer.accepted, one.answer.text) for one in asked if one.answer]


@pytest.fixture
def driven(tracking: Tracking) -> Callable[..., Driven]:
    def start(ask=lambda number, sweep: None, algorithm="random", *overrides, **settings) -> Driven:
        return Driven(study_of(algorithm, *overrides, **{"max_trials": 6, **settings}), tracking, ask)

    return start


def once_at(number: int, kind: str, **arguments: Any) -> Callable[[int, Driven], None]:
    """Asks for something during the trial of this number, once."""
    done = []

    def ask(now: int, sweep: Driven) -> None:
        if now == number and not done:
            done.append(now)
            sweep.send(kind, **arguments)

    return ask


def test_more_adds_trials_that_a_resume_keeps(driven):
    sweep = driven(once_at(2, "more", count=3)).run()
    assert [trial.number for trial in sweep.trials()] == list(range(9))
    assert sweep.answers() == [(True, "up to 9 trials")]
    assert SweepRun.find(sweep.store, "latest").record["settings"]["max_trials"] == 9
    assert len(sweep.resume().trials()) == 9


def test_more_in_the_last_trial_is_not_too_late(driven):
    assert len(driven(once_at(5, "more", count=1)).run().trials()) == 7


def test_a_trial_that_is_added_runs_next_and_is_counted_beside_the_others(driven):
    sweep = driven(once_at(2, "add", words=["model.dropout=0.123"])).run()
    trials = sweep.trials()
    best = rank(trials[:2], sweep.study.objective)[0]  # when it was asked for
    assert trials[3].values == {**best.values, "model.dropout": 0.123}
    assert trials[3].tags["proposed_by"] == "request/1"
    assert len(trials) == 7
    assert len(sweep.resume().trials()) == 7


@pytest.mark.parametrize("algorithm", ["grid", "tpe"])
def test_a_trial_that_is_added_is_not_proposed_again(driven, algorithm):
    words = ["model.dropout=0.2", "seed=3"] if algorithm == "grid" else ["model.dropout=0.2", "optimizer=sgd"]
    settings = {"max_trials": None} if algorithm == "grid" else {}
    sweep = driven(once_at(1, "add", words=words), algorithm, **settings).run()
    trials = sweep.trials()
    assert trials[2].values["model.dropout"] == 0.2
    assert len(trials) == (12 if algorithm == "grid" else 7)
    assert len({str(trial.values) for trial in trials}) == len(trials)


def test_failed_trials_run_again_under_their_numbers(driven):
    def ask(number: int, sweep: Driven) -> None:
        if number == 5 and sweep.fails:
            sweep.fails = set()
            sweep.send("retry", trials=[1, 3])

    sweep = driven(ask, max_consecutive_failures=9)
    sweep.fails = {1, 3}
    sweep.run()
    assert [trial.outcome for trial in sweep.trials()] == ["complete"] * 6
    metrics = sweep.record.fetch().metrics
    assert (metrics["trials/scored"], metrics["trials/failed"]) == (6, 0)
    assert sweep.answers() == [(True, "trials 1, 3 will run again")]
    assert [trial.outcome for trial in sweep.resume().trials()] == ["complete"] * 6


def test_a_space_that_was_changed_excludes_what_lies_outside(driven):
    sweep = driven(once_at(3, "widen", words=["model.dropout=interval(0.5,0.9)"]), max_trials=8).run()
    trials = sweep.trials()
    assert [bool(trial.excluded) for trial in trials] == [True] * 4 + [False] * 4
    assert all(0.5 <= trial.values["model.dropout"] <= 0.9 for trial in trials[4:])
    assert rank(trials, sweep.study.objective)[0].number >= 4
    resumed = sweep.resume()
    assert [bool(trial.excluded) for trial in resumed.trials()] == [True] * 4 + [False] * 4
    assert len(resumed.trials()) == 8


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_a_config_group_may_get_more_choices(driven, algorithm):
    sweep = driven(once_at(1, "widen", words=["optimizer=adam,sgd,rmsprop"]), algorithm, max_trials=14).run()
    trials = sweep.trials()
    assert not any(trial.excluded for trial in trials)
    assert {trial.values["optimizer"] for trial in trials} == {"adam", "sgd", "rmsprop"}
    config = sweep.study.configs.of({"model.dropout": 0.1, "optimizer": "rmsprop"})
    assert config.values["optimizer"]["_target_"].endswith("rmsprop")
    sweep.resume()


def test_a_grid_that_was_widened_tries_the_new_combinations_only(driven):
    sweep = driven(once_at(1, "widen", words=["seed=0,1,2,3,4"]), "grid", max_trials=None).run()
    trials = sweep.trials()
    assert len(trials) == 15
    assert len({str(trial.values) for trial in trials}) == 15


def test_a_paused_sweep_starts_no_trial_until_somebody_says_continue(driven):
    seen: list[int] = []

    def later(sweep: Driven) -> None:
        time.sleep(1.2)
        seen.append(len(sweep.trials()))
        sweep.send("continue")

    def ask(number: int, sweep: Driven) -> None:
        if number == 2:
            sweep.send("pause")
            threading.Thread(target=later, args=(sweep,)).start()

    sweep = driven(ask).run()
    assert seen == [3]
    assert len(sweep.trials()) == 6


def test_stop_lets_the_running_trial_end(driven):
    sweep = driven(once_at(2, "stop")).run()
    assert sweep.engine.stop_reason == "stopped"
    assert [trial.outcome for trial in sweep.trials()] == ["complete"] * 3
    assert len(sweep.resume().trials()) == 6


def test_stop_now_ends_the_running_trial_which_a_resume_runs_again(driven):
    sweep = driven(once_at(2, "stop", now=True)).run()
    assert sweep.engine.stop_reason == "stopped"
    assert [trial.outcome for trial in sweep.trials()] == ["complete", "complete", "pending"]
    resumed = sweep.resume()
    assert [trial.outcome for trial in resumed.trials()] == ["complete"] * 6


REFUSED = [
    ("continue", {}, "the sweep is not paused"),
    ("add", {"words": ["model.dropout=0.9"]}, "must fit the space, from 0 to 0.5, but got 0.9"),
    ("add", {"words": ["model.nosuch=0.9"]}, "must be a key that the sweep chooses: model.dropout, optimizer"),
    ("add", {"words": ["model.dropout=0.1,0.2"]}, "model.dropout must have one value, but got '0.1,0.2'"),
    ("add", {"words": ["model.dropout=[0.1"]}, "must be KEY=VALUE ("),
    ("add", {"words": ["optimizer=nosuch"]}, "must fit the space, one of adam, sgd, but got 'nosuch'"),
    ("retry", {"trials": [0]}, "trial 0 must be a failed one to run again, but got 'complete'"),
    ("retry", {"trials": [99]}, "trial 99 must be one of the 2 trials of the sweep"),
    ("widen", {"words": ["model.dropout=interval(0.5,0.1)"]}, "must be an interval from low to high"),
    ("widen", {"words": ["model.dropout=interval(0.5,7)"]}, "model.dropout must be less than 1"),
    ("widen", {"words": ["model.dropout=0.5"]}, "a single value belongs into the config itself"),
    ("widen", {"words": ["optimizer=adam,nosuch"]}, "nosuch"),
    ("add", {"words": ["optimizer=adam", "optimizer=sgd"]}, "optimizer must be given once"),
    ("widen", {"words": ["optimizer=adam,sgd", "optimizer=adam,rmsprop"]}, "optimizer must be given once"),
    ("widen", {"words": ["seed=1,2"]}, "must be KEY=VALUES with a key that the sweep chooses: model.dropout, opt"),
]


def test_what_cannot_be_done_is_refused_with_the_reason_and_changes_nothing(driven):
    def ask(number: int, sweep: Driven) -> None:
        if number == 1:
            for kind, arguments, _ in REFUSED:
                sweep.send(kind, **arguments)

    sweep = driven(ask).run()
    for (accepted, text), (kind, arguments, said) in zip(sweep.answers(), REFUSED, strict=True):
        assert not accepted, (kind, arguments)
        assert said in text, (kind, arguments)
    assert len(sweep.trials()) == 6


def test_values_that_a_trial_has_are_refused(driven):
    def ask(number: int, sweep: Driven) -> None:
        if number == 2:
            values = sweep.trials()[1].values
            sweep.send("add", words=[f"{key}={value}" for key, value in values.items()])

    sweep = driven(ask).run()
    assert sweep.answers() == [(False, "the trial has the values of trial 1; change one of them")]


def test_a_grid_and_brackets_say_that_they_cannot_grow(driven):
    grid = driven(once_at(1, "more", count=2), "grid", max_trials=None).run()
    assert "it ends when every combination was tried" in grid.answers()[0][1]


@pytest.mark.parametrize(("kind", "arguments"), [("more", {"count": 2}), ("widen", {"words": ["seed=1,2"]})])
def test_brackets_are_fixed(driven, kind, arguments):
    sweep = driven(once_at(0, kind, **arguments), "hyperband", max_trials=None).run()
    ((accepted, text),) = sweep.answers()
    assert not accepted
    assert "whose brackets hold a fixed number of trials" in text


def test_what_is_asked_without_a_process_waits_for_it_but_stop_is_refused(driven):
    sweep = driven().run()
    sweep.record.end("FINISHED")
    for kind, arguments in (("more", {"count": 2}), ("stop", {}), ("add", {"words": ["model.dropout=0.01"]})):
        send_request(sweep.store, sweep.record.run, kind, arguments)
    sweep.record = SweepRun.resume(sweep.store, "latest")
    sweep.study = Study.from_record(sweep.record.record, sweep.store.whitelist)
    sweep.record.take_over()
    sweep.run()
    assert [accepted for accepted, _ in sweep.answers()] == [True, False, True]
    assert sweep.answers()[1][1].startswith("no process ran the sweep when ")
    assert [trial.values["model.dropout"] for trial in sweep.trials()][6] == 0.01
    assert len(sweep.trials()) == 9


def test_a_process_that_is_killed_after_its_answer_has_changed_the_sweep(driven):
    """The next one finds every change in the store: trials that run again, more of them, and one that was added."""
    sweep = driven(max_consecutive_failures=9)
    sweep.fails = {1}
    sweep.run()
    failed = sweep.trials()[1].run_id
    changes = [
        Change(runs=(failed,)),
        Change(settings={"max_trials": 9}),
        Change(settings={"max_trials": 10}, values={"model.dropout": 0.05, "optimizer": "sgd"}),
    ]
    for number, change in enumerate(changes, 1):
        send_request(sweep.store, sweep.record.run, "more", {"count": 1})
        write_answer(sweep.store, sweep.record.id, number, Answer(True, "yes", 1, time.time(), change))
    sweep.fails = set()
    trials = sweep.resume().trials()
    assert [trial.outcome for trial in trials] == ["complete"] * 10
    assert trials[6].values == {"model.dropout": 0.05, "optimizer": "sgd"}


def test_many_processes_may_ask_at_once(driven):
    sweep = driven()

    def ask() -> None:
        for _ in range(4):
            send_request(sweep.store, sweep.record.run, "more", {"count": 1})

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.request.number for one in read_requests(sweep.record.fetch())] == list(range(1, 17))
    assert len(sweep.run().trials()) == 22


def test_a_handler_that_fails_refuses_and_the_sweep_goes_on(driven, monkeypatch):
    def fail(self, request):
        raise RuntimeError("a bug")

    monkeypatch.setitem(__import__("mnist_exp.sweep.steering", fromlist=["HANDLERS"]).HANDLERS, "more", fail)
    sweep = driven(once_at(1, "more", count=1)).run()
    assert sweep.answers() == [(False, "failed: RuntimeError: a bug")]
    assert len(sweep.trials()) == 6


def test_patience_ends_a_sweep_that_brings_nothing_better(driven):
    sweep = driven(max_trials=60, patience=4).run()
    assert sweep.engine.stop_reason == "patience"
    trials = sweep.trials()
    best = rank(trials, sweep.study.objective)[0].number
    assert len(trials) == best + 5
    assert len(sweep.resume().trials()) == len(trials)


def test_an_answer_names_the_models_that_saw_the_test_set(driven):
    sweep = driven().run()
    sweep.record.open_test_set(sweep.trials()[0].model_run_id)
    sweep.ask = once_at(6, "more", count=1)
    sweep.record.end("FINISHED")
    send_request(sweep.store, sweep.record.run, "more", {"count": 1})
    sweep.record = SweepRun.resume(sweep.store, "latest")
    sweep.study = replace(Study.from_record(sweep.record.record, sweep.store.whitelist))
    sweep.record.take_over()
    sweep.run()
    assert sweep.answers()[0][1] == (
        "up to 7 trials; the test set was opened for 1 model, and another winner will be one more"
    )


def test_a_long_answer_is_cut_and_a_broken_one_is_a_refusal(driven):
    """MLflow cuts a tag at 8,000 characters."""

    def ask(number: int, sweep: Driven) -> None:
        if number == 1:
            sweep.send("add", words=["optimizer=[" + "x " * 2300 + "("])
        if number == 2:
            send_request(sweep.store, sweep.record.run, "more", {"count": 1})
            sweep.store.set_tags(sweep.record.id, {"answer/2": '{"accepted": true, "te'})
            sweep.send("more", count=1)

    sweep = driven(ask).run()
    (first, text), (second, broken), (third, _) = sweep.answers()
    assert (first, second, third) == (False, False, True)
    assert len(text) == 1000
    assert broken == "its answer in the store cannot be read"
    assert len(sweep.trials()) == 7


def test_trials_outside_of_the_new_space_take_none_of_its_combinations(driven):
    ask = once_at(7, "widen", words=["model.dropout=0.3,0.4", "seed=0,1"])
    trials = driven(ask, "grid", max_trials=None).run().trials()
    new = [(trial.values["model.dropout"], trial.values["seed"]) for trial in trials if not trial.excluded]
    assert sorted(new) == [(0.3, 0), (0.3, 1), (0.4, 0), (0.4, 1)]
    assert len(trials) == 12


def test_more_counts_the_combinations_that_are_left(driven):
    def ask(number: int, sweep: Driven) -> None:
        if number == 7:
            sweep.send("widen", words=["model.dropout=0.3,0.4", "seed=0,1"])
            sweep.send("more", count=3)

    sweep = driven(ask, "grid", max_trials=8).run()
    assert sweep.answers()[1] == (True, "up to 11 trials")
    assert sum(not trial.excluded for trial in sweep.trials()) == 3


def test_what_was_added_and_does_not_fit_any_more_is_said_and_gives_its_place_back(driven):
    def ask(number: int, sweep: Driven) -> None:
        if number == 1:
            sweep.send("add", words=["model.dropout=0.05"])
            sweep.send("widen", words=["model.dropout=interval(0.1,0.5)"])

    sweep = driven(ask).run()
    assert "; request/1 waited and does not fit any more, so it is left out" in sweep.answers()[1][1]
    assert len(sweep.trials()) == 6
    assert not any(trial.values["model.dropout"] == 0.05 for trial in sweep.trials())


def test_what_fits_again_gets_its_place_back(driven):
    def ask(number: int, sweep: Driven) -> None:
        if number == 1:
            sweep.send("add", words=["model.dropout=0.05"])
            for low in (0.1, 0.11, 0.01):
                sweep.send("widen", words=[f"model.dropout=interval({low},0.5)"])

    sweep = driven(ask).run()
    texts = [text for _, text in sweep.answers()]
    assert ["request/1" in text for text in texts] == [False, True, False, True]
    assert "; request/1 was left out, fits again and runs next" in texts[3]
    assert len(sweep.trials()) == 7
    assert sweep.trials()[2].values["model.dropout"] == 0.05


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid"])
def test_a_group_may_lose_the_choice_on_which_others_depend(tracking, algorithm):
    section = {"optimizer": "adam,sgd", "when": {"optimizer=sgd": {"optimizer.momentum": "0.0,0.9"}}}
    space = parse(section, "test", ["model.dropout=0.0,0.1,0.2"], {})
    given = ("model.dropout=0.0,0.1,0.2", "optimizer=adam,sgd")
    most = None if algorithm == "grid" else 8
    study = replace(study_of(algorithm, max_trials=most), configs=TrialConfigs.compose(space, given))
    study = replace(study, overrides=given)
    sweep = Driven(study, tracking, once_at(6, "widen", words=["optimizer=adam,rmsprop"])).run()
    assert sweep.answers()[0][0], sweep.answers()
    trials = sweep.trials()
    assert all(trial.values["optimizer"] != "sgd" for trial in trials[7:])
    assert len(sweep.resume().trials()) == len(trials)


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid"])
def test_choices_may_become_a_range_that_writes_them_otherwise(driven, algorithm):
    words = ["model.dropout=range(0.0,0.5,0.1)"]
    sweep = driven(once_at(3, "widen", words=words), algorithm, "model.dropout=0,0.1,0.2", max_trials=9)
    sweep.run()
    assert sweep.answers()[0][0], sweep.answers()
    trials = sweep.trials()
    assert not any(trial.excluded for trial in trials)
    assert len({str(sorted(trial.values.items())) for trial in trials}) == len(trials) == 9
    assert len(sweep.resume().trials()) == 9


def test_what_others_depend_on_keeps_choices(tracking):
    section = {"when": {"seed=1": {"model.dropout": "0.0,0.9"}}}
    configs = TrialConfigs.compose(parse(section, "test", ["seed=0,1"], {}), ("seed=0,1",))
    study = replace(study_of("random", max_trials=3), configs=configs, overrides=("seed=0,1",))
    sweep = Driven(study, tracking, once_at(1, "widen", words=["seed=range(0,4)"])).run()
    assert not sweep.answers()[0][0]
    assert "seed must have choices, because others depend on it" in sweep.answers()[0][1]


def test_a_space_that_the_sampler_cannot_take_is_refused(driven, monkeypatch):
    ask = once_at(2, "widen", words=["model.dropout=interval(0.1,0.5)"])
    sweep = driven(ask)

    def fail(study):
        raise ValueError("a bug")

    monkeypatch.setattr("mnist_exp.sweep.steering.create_sampler", fail)
    assert sweep.run().answers() == [(False, "failed: ValueError: a bug")]
    assert len(sweep.resume().trials()) == 6


class Late(Inline):
    """An executor that tells the end of one trial some looks after it: requests are brought in meanwhile."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.looks = number, 3

    def submit(self, fn: Any, job: Job) -> Any:
        future = super().submit(fn, job)
        if job.number != self.number or not self.looks:
            return future
        self.held, self.outcome = Future(), future.result()
        return self.held

    def refresh(self) -> None:
        if hasattr(self, "held") and self.looks:
            self.looks -= 1
            if not self.looks:
                self.held.set_result(self.outcome)


def test_a_trial_that_runs_while_it_is_left_outside_is_not_the_best(driven):
    """Its score, with a dropout near 0.2, would be the highest."""
    best = []

    def ask(number: int, sweep: Driven) -> None:
        if number == 2 and not best:
            sweep.send("widen", words=["model.dropout=interval(0.5,0.9)"])
            best.append(sweep.trials()[2].run_id)

    sweep = driven(ask, "tpe")
    sweep.executor = Late(2)
    sweep.run()
    recorded = sweep.record.fetch().metrics
    inside = [trial.score for trial in sweep.trials() if not trial.excluded]
    assert len(inside) == 3
    assert recorded["best/score"] == max(inside)
    assert all(trial.score == -math.inf for trial in list(sweep.engine.sampler.trials.values())[:3])


class Cut:
    """A call to the store of which the first one loses its request or its reply."""

    def __init__(self, real: Callable[..., Any], lost: str) -> None:
        self.real, self.lost = real, lost

    def __call__(self, *arguments: Any) -> Any:
        lost, self.lost = self.lost, ""
        if lost == "request":
            raise TrackingError("the store is away")
        result = self.real(*arguments)
        if lost == "reply":
            raise TrackingError("the reply was lost")
        return result


@pytest.mark.parametrize("lost", ["request", "reply"])
def test_an_answer_is_obeyed_once_also_if_the_store_was_away(driven, monkeypatch, lost):
    def ask(number: int, sweep: Driven) -> None:
        if number == 3:
            monkeypatch.setattr("mnist_exp.sweep.steering.write_answer", Cut(write_answer, lost))
            with pytest.raises(TrackingError):
                sweep.send("more", count=2)
            sweep.steering.look(sweep.record.fetch())
            sweep.steering.look(sweep.record.fetch())

    sweep = driven(ask).run()
    assert sweep.answers() == [(True, "up to 8 trials")]
    assert len(sweep.trials()) == 8
    assert len(sweep.lines) == 1


def test_a_retry_is_obeyed_also_if_the_store_was_away_after_the_answer(driven, monkeypatch):
    def ask(number: int, sweep: Driven) -> None:
        if number == 3 and sweep.fails:
            sweep.fails = set()
            monkeypatch.setattr(sweep.record, "supersede", Cut(sweep.record.supersede, "request"))
            with pytest.raises(TrackingError):
                sweep.send("retry", trials=[1])
            sweep.steering.look(sweep.record.fetch())

    sweep = driven(ask, max_consecutive_failures=9)
    sweep.fails = {1}
    assert [trial.outcome for trial in sweep.run().trials()] == ["complete"] * 6


def test_a_failed_trial_that_the_engine_still_holds_runs_again(driven):
    """Its run has failed in the store, but its worker has not said so."""
    sweep = driven(max_consecutive_failures=9)
    sweep.fails = {1}
    sweep.executor = Late(1)
    real, sent = sweep.work, []

    def work(job: Job) -> Outcome:
        outcome = real(job)
        if outcome.failure and not sent:
            sent.append(job.number)
            sweep.fails = set()
            sweep.send("retry", trials=[1])
        return outcome

    sweep.work = work
    sweep.run()
    assert sweep.answers() == [(True, "trial 1 will run again")]
    assert [trial.outcome for trial in sweep.trials()] == ["complete"] * 6
    metrics = sweep.record.fetch().metrics
    assert (metrics["trials/scored"], metrics["trials/failed"]) == (6, 0)


@pytest.mark.parametrize("kind", ["more", "add", "retry"])
def test_what_is_asked_of_a_sweep_that_patience_has_ended_runs(driven, kind):
    sweep = driven(max_trials=60, patience=4, max_consecutive_failures=9)
    sweep.fails = {2}
    sweep.run()
    assert sweep.engine.stop_reason == "patience"
    before, sweep.fails = len(sweep.trials()), set()
    arguments = {"more": {"count": 3}, "add": {"words": ["model.dropout=0.499"]}, "retry": {"trials": [2]}}[kind]
    send_request(sweep.store, sweep.record.run, kind, arguments)
    trials = sweep.resume().trials()
    assert sweep.answers()[0][0]
    if kind == "more":
        assert len(trials) > before
    elif kind == "add":
        assert trials[before].values["model.dropout"] == 0.499
    else:
        assert trials[2].outcome == "complete"


@pytest.mark.parametrize("kind", ["add", "retry"])
def test_what_is_asked_of_a_sweep_whose_epochs_are_trained_runs(driven, kind):
    sweep = driven(max_trials=60, max_epochs=7, max_consecutive_failures=9)
    sweep.fails = {0}
    sweep.run()
    assert sweep.engine.stop_reason == "epochs"
    before, sweep.fails = len(sweep.trials()), set()
    arguments = {"add": {"words": ["model.dropout=0.499"]}, "retry": {"trials": [0]}}[kind]
    send_request(sweep.store, sweep.record.run, kind, arguments)
    trials = sweep.resume().trials()
    assert len(trials) == before + (kind == "add")
    assert trials[-1 if kind == "add" else 0].outcome == "complete"


def test_more_trials_need_epochs_to_train_them(driven):
    sweep = driven(max_trials=60, max_epochs=7).run()
    send_request(sweep.store, sweep.record.run, "more", {"count": 3})
    before = len(sweep.trials())
    assert len(sweep.resume().trials()) == before
    said = "the sweep has trained the 7 epochs of sweep.max_epochs; resume it with a larger number, or null"
    assert sweep.answers() == [(False, said)]


class Leaving(Inline):
    """An executor whose only worker leaves while a trial runs, and comes back when it is let in."""

    width = 1

    def refresh(self) -> None:
        self.looks = getattr(self, "looks", 0) + 1
        if self.looks == self.back:
            self.width = 1

    back = 0

    def submit(self, fn: Any, job: Job) -> Any:
        future = super().submit(fn, job)
        if job.number == 2 and not self.back:
            self.width, self.back = 0, self.looks + 3
        return future


def test_a_request_while_there_is_no_worker_doubles_no_trial(driven):
    """The next trial waits for a worker and has no run yet."""
    sweep = driven()
    executor = Leaving()

    def refresh() -> None:
        Leaving.refresh(executor)
        if executor.back and executor.looks == executor.back - 1:
            sweep.send("more", count=2)

    executor.refresh = refresh
    sweep.executor = executor
    sweep.run()
    runs = [run.tags["trial"] for run in list_runs(sweep.store, "tags.kind = 'trial'")]
    assert sorted(runs) == sorted(set(runs))
    assert len(runs) == 8
