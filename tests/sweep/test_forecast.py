"""What a plan expects a sweep to train and to take."""

import random
import statistics

import pytest
from light_trials import study_of
from spaces import parse

from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.config.objective import Objective
from mnist_exp.data.load import load_splits
from mnist_exp.sweep.forecast import BETWEEN, count_programs, predict, probe, ratio_of_survivors, seconds_of, work_of
from mnist_exp.sweep.pruners.asha import expected, goes_on
from mnist_exp.sweep.samplers import create_sampler
from mnist_exp.sweep.trial import Proposal
from mnist_exp.tracking.costs import Cost


def test_a_grid_trains_every_trial_to_its_end():
    work = work_of(study_of("grid", "training.epochs=6"), 12)
    assert (work.trials, work.epochs, work.reached) == (12, 72, {6: 12.0})


@pytest.mark.parametrize("trials", [1, 7, 40])
def test_as_many_go_on_after_a_rung_as_random_scores_let(trials):
    rng, objective, counts = random.Random(0), Objective("val/accuracy", "max"), []
    for _ in range(2000):
        seen: list[float] = []
        passed = 0
        for _ in range(trials):
            score = rng.random()
            passed += goes_on(score, seen, 4, objective)
            seen.append(score)
        counts.append(passed)
    assert expected(trials, 4) == pytest.approx(statistics.fmean(counts), rel=0.05)


def test_the_rungs_of_asha_are_reached_by_fewer_and_fewer():
    work = work_of(study_of("asha", factor=4), 40)
    assert sorted(work.reached) == [1, 4, 8]
    first, second, whole = (work.reached[epoch] for epoch in (1, 4, 8))
    assert first == 40
    assert first > 3 * second
    assert second > 2 * whole
    assert work.epochs == pytest.approx(first + 3 * second + 4 * whole)


def test_hyperband_trains_what_its_brackets_say():
    """Followed through: every epoch that its proposals ask for, without those of the trial that each continues."""
    study = study_of("hyperband")
    sampler = create_sampler(study)
    trained, reached = 0, {None: 0}
    while isinstance(asked := sampler.ask(), Proposal):
        assert asked.rung is not None
        trained += asked.rung.epochs - reached[asked.rung.parent]
        reached[asked.number] = asked.rung.epochs
        sampler.tell(asked.number, random.random())
    assert work_of(study, create_sampler(study).total).epochs == trained


def test_a_limit_of_epochs_limits_the_work():
    work = work_of(study_of("grid", "training.epochs=6", max_epochs=36), 12)
    assert (work.trials, work.epochs) == (6, 36)


def test_a_cost_is_that_of_trainings_that_are_alike():
    known = [Cost(1000, 32, 1.0, 0.2), Cost(1000, 128, 1.2, 0.1), Cost(100_000, 32, 2.0, 2.0)]
    assert predict(known, 1000, 32).epoch == pytest.approx(0.2)
    assert predict(known, 100_000, 32).beside == pytest.approx(2.0)
    assert 0.1 < predict(known, 1000, 64).epoch < 0.5
    assert predict(known[:1], 5, 7) == Cost(5, 7, 1.0, 0.2)


def test_the_time_is_that_of_all_trials_on_the_workers():
    work = work_of(study_of("grid", "training.epochs=6"), 12)
    costs = [Cost(1, 1, 1.0, 0.5), Cost(1, 1, 3.0, 1.5)]
    with_seeds = seconds_of(work, costs, executions=2, workers=3)
    assert with_seeds == pytest.approx(((12 * 2 + 72 * 1) * 2 + 12 * 3 * BETWEEN) / 3)
    no_more_workers_than_trials = seconds_of(work, costs, executions=1, workers=100)
    assert no_more_workers_than_trials == pytest.approx(2 + 6 + BETWEEN)


def test_a_probe_trains_a_moment_and_answers_for_an_epoch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = check(compose(["dataset=digits", "model=mlp", "model.widths=[8]", "tracking=off"]))
    probed = probe(config, load_splits(config))
    cost = probed.cost
    assert (cost.parameters, cost.batch_size) == (
        28 * 28 * 8 + 8 + 8 * 10 + 10,
        config.values["training"]["batch_size"],
    )
    assert cost.epoch > 0
    assert cost.beside > 0
    assert probed.compiling > 0
    assert list(tmp_path.iterdir()) == []


def test_trials_that_differ_in_rates_alone_share_a_program():
    rate = "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))"
    space = parse({}, "test", (rate, "model.widths=[8],[16]", "training.batch_size=range(32,65,32)"), {})
    assert count_programs(space, 100) == 4
    assert count_programs(space, 1) == 1


def test_most_epochs_are_those_of_the_nets_that_go_on():
    known = [Cost(1000, 32, 1.0, 0.1, 1), Cost(2000, 32, 1.0, 0.1, 1), Cost(90_000, 32, 1.0, 0.4, 8)]
    assert ratio_of_survivors(known) == pytest.approx((0.1 + 0.1 + 8 * 0.4) / 10 / 0.2)
    assert ratio_of_survivors(known[:2]) == 1
