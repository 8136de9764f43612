import random
import statistics

import pytest

from mnist_exp.config.objective import Objective
from mnist_exp.sweep.race import Race, race

MAX = Objective("val/accuracy", "max")
MIN = Objective("val/loss", "min")


def scores(**trials: list[float | None]):
    return {int(name[1:]): dict(enumerate(found)) for name, found in trials.items()}


def test_first_every_candidate_gets_the_first_new_seed():
    assert race([7, 3, 5], {}, 5, MAX) == Race((7, 3, 5), ((7, 0), (3, 0), (5, 0)))
    assert race([7, 3, 5], scores(t7=[0.9], t5=[0.8]), 5, MAX).open == ((3, 0),)


def test_a_candidate_that_is_clearly_worse_gets_no_more_seeds():
    found = scores(t7=[0.90, 0.91, 0.92], t3=[0.80, 0.81, 0.82], t5=[0.93, 0.90, 0.91])
    stand = race([7, 3, 5], found, 5, MAX)
    assert set(stand.left) == {5, 7}
    assert stand.left[0] == 5  # its mean is the higher one
    assert {trial for trial, _ in stand.open} == {5, 7}
    assert {seed for _, seed in stand.open} == {3}


def test_the_race_ends_when_one_is_left():
    found = scores(t7=[0.90, 0.91, 0.92], t3=[0.80, 0.81, 0.82])
    assert race([3, 7], found, 9, MAX) == Race((7,))
    assert race([3, 7], found, 9, MIN) == Race((3,))


def test_the_race_ends_with_the_last_seed_and_the_higher_mean_wins():
    found = scores(t7=[0.90, 0.91, 0.92, 0.93], t3=[0.92, 0.90, 0.94, 0.91])
    assert race([7, 3], found, 4, MAX) == Race((3, 7))


def test_a_candidate_whose_training_fails_is_out_and_the_last_one_stays():
    assert race([7, 3], scores(t7=[None], t3=[0.5]), 5, MAX).left == (3,)
    assert race([7, 3], scores(t7=[None], t3=[None]), 5, MAX).left == (7,)


@pytest.mark.parametrize("objective", [MAX, MIN])
def test_new_seeds_find_the_better_of_two_more_often_than_the_sweep_does(objective):
    """Twenty configurations with scores of the same noise; the best three of a sweep are raced, 300 times."""
    rng, sign = random.Random(0), 1 if objective is MAX else -1
    plain, raced, seeds = [], [], 0
    for _ in range(300):
        true = [sign * rng.gauss(0, 1) for _ in range(20)]
        first = [mean + rng.gauss(0, 0.7) for mean in true]
        ranked = sorted(range(20), key=lambda trial: objective.rank(first[trial]))[:3]
        found: dict[int, dict[int, float | None]] = {}
        while (stand := race(ranked, found, 5, objective)).open:
            for trial, seed in stand.open:
                found.setdefault(trial, {})[seed] = true[trial] + rng.gauss(0, 0.7)
                seeds += 1
        plain.append(sign * true[ranked[0]])
        raced.append(sign * true[stand.left[0]])
    assert statistics.fmean(raced) > statistics.fmean(plain) + 0.1
    assert seeds < 300 * 15 * 0.95  # clear answers end early
