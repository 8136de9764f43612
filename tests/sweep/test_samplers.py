"""Each sampler driven by trials that cost nothing: a score from a formula, failures, a kill at any moment."""

import functools
import json
import math
import random
from dataclasses import asdict, dataclass, field

import pytest
from spaces import parse

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import format_value
from mnist_exp.sweep.samplers import SAMPLERS
from mnist_exp.sweep.samplers.hyperband import HyperbandSampler
from mnist_exp.sweep.trial import WAIT, Proposal

MIXED = {
    "model.dropout": "interval(0.0, 0.6)",
    "model.units": "tag(log, int(interval(16, 256)))",
    "model.widths": "choice([64], [128, 64])",
    "model.norm": "true, false",
    "training.batch_size": "tag(log, range(32, 257, 2))",
    "model.patience": "null, 3",
    "optimizer": "adam, adadelta",
    "when": {
        "optimizer=adam": {
            "optimizer.learning_rate": "tag(log, interval(1e-4, 1e-2))",
            "optimizer.beta_1": "range(0.8, 1.0, 0.05)",
        },
        "optimizer=adadelta": {"optimizer.learning_rate": "interval(0.1, 1.0)"},
    },
}
SMALL = {"a": "range(0, 4)", "b": "x, y, z", "c": "null, 1"}  # 24 combinations
GRID = {"a": "range(0, 5)", "m": "mlp, cnn", "when": {"m=cnn": {"kernel": "3, 5, 7"}}}  # 20
ALGORITHMS = ["random", "tpe", "hyperband"]


def space(section):
    return _space(json.dumps(section))


@functools.cache
def _space(text):
    return parse(json.loads(text), "test", [], {})


def make(algorithm, section, seed=0, direction="max", epochs=9):
    if algorithm == "hyperband":
        objective = Objective("val/accuracy", direction)
        return HyperbandSampler(space(section), objective, seed, max_epochs=epochs, factor=3, hyperband_iterations=1)
    return SAMPLERS[algorithm](space(section), Objective("val/accuracy", direction), seed)


@dataclass
class Past:
    """A trial as the store gives it back."""

    proposal: Proposal
    has_ended: bool
    score: float | None = None
    epochs: int = 0
    excluded: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def has_score(self):
        return self.has_ended and self.score is not None

    @property
    def number(self):
        return self.proposal.number

    @property
    def values(self):
        return json.loads(json.dumps(self.proposal.values))

    @property
    def rung(self):
        return asdict(self.proposal.rung) if self.proposal.rung else None

    @property
    def outcome(self):
        return "pending" if not self.has_ended else "failed" if self.score is None else "complete"


def score_of(proposal: Proposal) -> float:
    """Smooth, conditional, and the better the longer it trained."""
    values = proposal.values
    rate = values.get(
        "optimizer=adam/optimizer.learning_rate", values.get("optimizer=adadelta/optimizer.learning_rate")
    )
    epochs = proposal.rung.epochs if proposal.rung else 9
    if rate is None:
        return values.get("a", 0) + (values.get("b") == "y") + epochs / 100
    distance = (math.log10(rate) + 3) ** 2 if values["optimizer"] == "adam" else 0.5 + (rate - 0.6) ** 2
    return 1 - distance / 10 - (values["model.dropout"] - 0.3) ** 2 + epochs / 100


@dataclass
class Drive:
    """An engine without trials: `width` of them pending at once, ended in a random order."""

    sampler: object
    width: int = 4
    fails: object = lambda number: False
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    pending: list = field(default_factory=list)
    past: list = field(default_factory=list)  # in the order they ended

    def step(self, most=math.inf) -> bool:
        """Asks until the window is full, ends one trial; False once nothing is left."""
        while len(self.pending) < self.width and len(self.past) + len(self.pending) < most:
            proposal = self.sampler.ask()
            if proposal in (None, WAIT):
                assert proposal is None or self.pending, "waiting for nothing"
                break
            self.pending.append(proposal)
        if self.pending:
            self.end()
            return True
        return False

    def end(self) -> None:
        """One of the pending trials."""
        proposal = self.pending.pop(self.rng.randrange(len(self.pending)))
        score = None if self.fails(proposal.number) else score_of(proposal)
        self.sampler.tell(proposal.number, score)
        self.past.append(Past(proposal, True, score))

    def run(self, most=math.inf):
        while self.step(most):
            pass
        return self.past

    @property
    def recorded(self):
        """What the store would hold at this moment."""
        return [*self.past, *(Past(proposal, False) for proposal in self.pending)]


def config(proposal):
    return tuple(sorted((name, format_value(value)) for name, value in proposal.values.items()))


def test_a_grid_is_complete_and_in_the_order_of_hydra():
    past = Drive(make("grid", {"a": "range(0,2)", "b": "x,y"}), width=1).run()
    assert [p.proposal.values for p in past] == [{"a": a, "b": b} for a in (0, 1) for b in ("x", "y")]


def test_a_grid_takes_conditional_keys_only_where_their_condition_holds():
    section = {"m": "mlp,cnn", "s": "1,2", "when": {"m=cnn": {"kernel": "3,5"}}}
    past = Drive(make("grid", section)).run()
    assert len(past) == space(section).size == 2 + 4
    assert all(("m=cnn/kernel" in p.proposal.values) == (p.proposal.values["m"] == "cnn") for p in past)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("algorithm", ["grid", "random", "tpe"])
def test_a_small_space_is_tried_whole_and_nothing_twice(algorithm, seed):
    past = Drive(make(algorithm, SMALL, seed)).run()
    assert len({config(p.proposal) for p in past}) == len(past) == 24


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_no_proposal_comes_twice_in_a_large_space(algorithm):
    past = Drive(make(algorithm, MIXED)).run(60)
    assert len({config(p.proposal) for p in past}) == 60


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_values_stay_in_their_ranges(algorithm):
    for past in Drive(make(algorithm, MIXED)).run(40):
        values = past.proposal.values
        assert 0 <= values["model.dropout"] <= 0.6
        assert isinstance(values["model.units"], int)
        assert 16 <= values["model.units"] <= 256
        assert values["training.batch_size"] in (32, 64, 128, 256)
        assert values["model.widths"] in ([64], [128, 64])
        assert values["model.patience"] in (None, 3)
        adam = values["optimizer"] == "adam"
        assert adam == ("optimizer=adam/optimizer.learning_rate" in values)
        assert adam != ("optimizer=adadelta/optimizer.learning_rate" in values)
        assert values.get("optimizer=adam/optimizer.beta_1", 0.8) in (0.8, 0.85, 0.9, 0.95)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_seed_repeats_a_sweep_and_another_does_not(algorithm):
    first, second, other = ([p.proposal for p in Drive(make(algorithm, MIXED, seed)).run(20)] for seed in (0, 0, 1))
    assert first == second
    assert first != other


@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize(
    ("algorithm", "section"),
    [("grid", GRID), *((algorithm, section) for algorithm in ALGORITHMS for section in (MIXED, SMALL))],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} keys",
)
def test_a_restored_sampler_goes_on_as_if_nothing_had_happened(algorithm, section, direction):
    """At every moment of a sweep with failures and up to four trials pending."""
    drive = Drive(make(algorithm, section, 3, direction), fails=lambda number: number % 5 == 2)
    for _ in range(40):
        again, shuffled = make(algorithm, section, 3, direction), make(algorithm, section, 3, direction)
        again.restore(drive.recorded)
        shuffled.restore(reversed(drive.recorded))
        asked = drive.sampler.ask()
        assert again.ask() == shuffled.ask() == asked
        if isinstance(asked, Proposal):
            drive.pending.append(asked)
        if not drive.pending:
            break
        if len(drive.pending) == drive.width or not isinstance(asked, Proposal):
            drive.end()
    assert len(drive.past) > 10


def rungs(past):
    found = {}
    for p in past:
        found.setdefault((p.proposal.rung.bracket, p.proposal.rung.number), []).append(p.proposal)
    return found


@pytest.mark.parametrize("fails", [lambda n: False, lambda n: n % 3 == 0, lambda n: n % 2 == 0, lambda n: True],
                         ids=["none", "a third", "half", "all"])  # fmt: skip
def test_hyperband_fills_every_rung_whatever_fails(fails):
    past = Drive(make("hyperband", MIXED), fails=fails).run()
    assert {rung: len(found) for rung, found in rungs(past).items()} == {
        (2, 0): 9, (2, 1): 3, (2, 2): 1, (1, 0): 5, (1, 1): 2, (0, 0): 3,
    }  # fmt: skip


def test_hyperband_promotes_the_best_of_a_rung_with_the_same_values_and_more_epochs():
    past = Drive(make("hyperband", MIXED)).run()
    by_number = {p.proposal.number: p for p in past}
    for (bracket, number), found in rungs(past).items():
        assert {p.rung.epochs for p in found} == {9 // 3 ** (bracket - number)}
        for proposal in found:
            assert (proposal.rung.parent is None) == (number == 0)
            if number:
                parent = by_number[proposal.rung.parent].proposal
                assert parent.values == proposal.values
                assert (parent.rung.bracket, parent.rung.number) == (bracket, number - 1)
    first, second = rungs(past)[2, 0], rungs(past)[2, 1]
    promoted = {p.rung.parent for p in second}
    assert max(first, key=score_of).number in promoted
    assert len(promoted) == 3


def test_hyperband_in_a_small_space_ends():
    past = Drive(make("hyperband", {"a": "range(0,2)", "b": "x,y"})).run()
    first = [p for p in past if p.proposal.rung.number == 0]
    assert len({config(p.proposal) for p in first}) == len(first) == 4


def test_tpe_finds_the_good_region():
    late = Drive(make("tpe", MIXED), width=1).run(60)[40:]
    early = Drive(make("random", MIXED), width=1).run(60)[40:]
    assert sum(p.score for p in late) / 20 > sum(p.score for p in early) / 20 + 0.02


def test_tpe_keeps_away_from_what_fails():
    def fails(number):
        return drive.sampler.trials[f"{number:04d}"].hyperparameters.values["optimizer"] == 0  # the code of adam

    drive = Drive(make("tpe", MIXED), width=1, fails=fails)
    late = drive.run(60)[30:]
    assert sum(p.score is None for p in late) < 8


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_score_that_is_not_a_number_counts_as_a_failure(algorithm):
    """A store of an older version may hold one."""

    def run(score):
        sampler = make(algorithm, MIXED)
        past = []
        for number in range(12):
            proposal = sampler.ask()
            assert isinstance(proposal, Proposal)
            value = score if number == 3 else score_of(proposal)
            sampler.tell(proposal.number, value)
            past.append(Past(proposal, True, value))
        return [config(one.proposal) for one in past], past

    proposals, past = run(math.nan)
    assert proposals == run(None)[0]
    restored = make(algorithm, MIXED)
    restored.restore(past)
    assert isinstance(restored.ask(), Proposal)


@pytest.mark.parametrize("seed", range(5))
def test_hyperband_repeats_its_brackets_with_parallel_workers(seed):
    """Then trials of a bracket with few rounds are asked for while one with more still runs."""
    sampler = HyperbandSampler(
        space(MIXED), Objective("val/accuracy", "max"), 0, max_epochs=9, factor=3, hyperband_iterations=2
    )
    past = Drive(sampler, width=8, rng=random.Random(seed)).run()
    assert len(past) == sampler.total == 2 * (9 + 3 + 1 + 5 + 2 + 3)


HINTED = {
    "rate": "tag('best=1e-3', log, interval(1e-5, 1.0))",
    "width": "tag('best=64', log, range(16, 513, 2))",
    "norm": "tag('best=true', choice(true, false))",
    "depth": "range(1, 4)",
}


def test_the_first_proposals_lie_near_what_the_space_says_is_good():
    found = [Drive(make("tpe", HINTED, seed=seed), width=1).run(10) for seed in range(20)]
    values = [one.proposal.values for past in found for one in past]
    assert len(values) == 200
    near = [abs(math.log10(value["rate"]) + 3) < 1 for value in values]  # a fifth of the range on each side
    assert 0.6 < sum(near) / 200 < 0.95  # drawn evenly it would be 0.4
    assert sum(value["norm"] for value in values) / 200 > 0.6
    assert {value["depth"] for value in values} == {1, 2, 3}
    assert {type(value["width"]) for value in values} == {int}


def test_what_is_said_to_be_good_does_not_bind():
    """The best rate is three decades away from what the space says."""
    sampler = make("tpe", HINTED)
    for _ in range(60):
        proposal = sampler.ask()
        assert isinstance(proposal, Proposal)
        sampler.tell(proposal.number, -abs(math.log10(proposal.values["rate"])))
    newest = sorted(sampler.trials)[-20:]
    rates = [sampler.trials[key].hyperparameters.values["rate"] for key in newest]
    assert sum(rate > 0.1 for rate in rates) > 10
