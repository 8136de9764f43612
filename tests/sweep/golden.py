"""Proposals of each algorithm for one space and fixed scores, kept in golden_proposals.json with plain values.

A resumed sweep restores its sampler from recorded trials, so a sampler must go on proposing what it would have proposed
when the sweep began. The file was written by version 4bcc55e. Write it again only to accept other proposals on purpose:

    python tests/sweep/golden.py

Only SamplerOfToday knows the code: adapt that class when names or the form of values change, never the file.
"""

import json
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FILE = Path(__file__).with_name("golden_proposals.json")
SEED, EPOCHS, FACTOR, WIDTH = 3, 9, 3, 3  # WIDTH: trials that run at once
CHOICES = {
    "model.widths": "choice([64],[128,64],[])",
    "model.activation": 'relu, "tanh"',
    "model.batch_norm": "true, false",
    "training.early_stopping_patience": "null, 3",
    "optimizer.beta_1": "0.8, 0.95",
}
MIXED = {
    **CHOICES,
    "model.dropout": "interval(0.0, 0.5)",
    "model.units": "int(interval(1, 9))",
    "model.filters": "tag(log, int(interval(8, 256)))",
    "training.batches": "range(10, 50, 10)",
    "training.batch_size": "tag(log, range(16, 257, 2))",
    "optimizer": "adam, sgd, rmsprop",
    "when": {
        "optimizer=adam,rmsprop": {"optimizer.learning_rate": "tag(log, interval(1e-4, 1e-2))"},
        "optimizer=sgd": {"optimizer.learning_rate": "interval(0.01, 0.5)", "optimizer.momentum": "range(0.5, 1, 0.1)"},
    },
}
COUNTABLE = {
    "model.widths": CHOICES["model.widths"],
    "training.early_stopping_patience": CHOICES["training.early_stopping_patience"],
    "optimizer": MIXED["optimizer"],
    "when": {
        "optimizer=adam,rmsprop": {"optimizer.learning_rate": "tag(log, range(0.001, 0.1, 10))"},
        "optimizer=sgd": {"optimizer.momentum": "range(0.5, 1, 0.25)", "optimizer.nesterov": "true, false"},
    },
}
SPACES = {"grid": COUNTABLE, "random": MIXED, "tpe": MIXED, "hyperband": MIXED}
LIBRARIES = {"tpe": "optuna", "random": "keras-tuner", "hyperband": "keras-tuner"}  # that decide on the proposals
CASES = [  # scores decide on the proposals of two of them
    ("grid", "max"), ("random", "max"), ("tpe", "max"), ("tpe", "min"), ("hyperband", "max"), ("hyperband", "min"),
]  # fmt: skip
SCORES = [  # by the number of the trial, in no order; one fails
    0.41, 0.87, 0.12, 0.55, 0.93, 0.28, None, 0.66, 0.74, 0.05, 0.81, 0.37, 0.59, 0.97, 0.22, 0.48, 0.69, 0.33, 0.9,
    0.16,
]  # fmt: skip

Told = dict[str, Any]  # a proposal: its number, its values by the names of the parameters, and its rung


class SamplerOfToday:
    """A sampler that takes and gives plain values: lists, null as None, true as True."""

    def __init__(self, algorithm: str, direction: str) -> None:
        from spaces import parse

        from mnist_exp.config.objective import Objective
        from mnist_exp.sweep.samplers import SAMPLERS, HyperbandSampler

        given: Any = parse(SPACES[algorithm], "test", [], {}), Objective("val/accuracy", direction), SEED
        if algorithm == "hyperband":
            self.sampler: Any = HyperbandSampler(*given, max_epochs=EPOCHS, factor=FACTOR, hyperband_iterations=1)
        else:
            self.sampler = SAMPLERS[algorithm](*given)

    def ask(self) -> Told | None:
        """The next proposal; None where a trial that runs must end first, or nothing is left."""
        from dataclasses import asdict

        from mnist_exp.sweep.trial import Proposal

        asked = self.sampler.ask()
        if not isinstance(asked, Proposal):
            return None
        return {"number": asked.number, "values": asked.values, "rung": asked.rung and asdict(asked.rung)}

    def tell(self, number: int, score: float | None) -> None:
        """The score of a trial; None: it failed."""
        self.sampler.tell(number, score)

    def restore(self, trials: list[Told], ended: set[int]) -> None:
        """Recorded trials; those that have not ended are still to run."""
        recorded = []
        for trial in trials:
            score = SCORES[trial["number"]]
            state = "pending" if trial["number"] not in ended else "failed" if score is None else "complete"
            more = {"tags": {}, "excluded": "", "has_score": state == "complete"}
            recorded.append(SimpleNamespace(**trial, outcome=state, score=score, **more))
        self.sampler.restore(recorded)


class Search:
    """Asks until WIDTH trials run, then tells the score of the oldest."""

    def __init__(self, algorithm: str, direction: str) -> None:
        self.sampler = SamplerOfToday(algorithm, direction)
        self.proposed: list[Told] = []
        self.running: list[int] = []

    def run(self, count: int) -> list[Told]:
        """The proposals, once there are so many of them."""
        while len(self.proposed) < count:
            asked = self.sampler.ask() if len(self.running) < WIDTH else None
            if asked is None:
                self.end_oldest()
            else:
                self.proposed.append(asked)
                self.running.append(asked["number"])
        return self.proposed

    def end_oldest(self) -> None:
        number = self.running.pop(0)
        self.sampler.tell(number, SCORES[number])

    @classmethod
    def restored(cls, algorithm: str, direction: str, trials: list[Told]) -> "Search":
        """Where a search stood when it had proposed these trials, from its record alone."""
        first = cls(algorithm, direction)
        first.run(len(trials))
        search = cls(algorithm, direction)
        search.proposed, search.running = list(trials), list(first.running)
        search.sampler.restore(trials, {trial["number"] for trial in trials} - set(search.running))
        return search


def same(one: Any, other: Any) -> bool:
    """Equal and of one type, numbers but for rounding: another processor may compute another last digit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-9 * max(abs(one), abs(other))
    return type(one) is type(other) and one == other


def main() -> None:
    """Writes the file."""
    found = {
        f"{algorithm} {direction}": Search(algorithm, direction).run(len(SCORES)) for algorithm, direction in CASES
    }
    versions = {library: version(library) for library in sorted(set(LIBRARIES.values()))}
    lines = [f' "versions": {json.dumps(versions)}']
    for case, proposals in found.items():
        rows = ",\n".join(f"  {json.dumps(proposal)}" for proposal in proposals)
        lines.append(f' "{case}": [\n{rows}\n ]')
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
