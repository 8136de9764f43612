"""python -m unittest: everything of this folder composes, trains and learns."""

import unittest

import mnist_exp


class Project(unittest.TestCase):
    """Short trainings on the handwritten digits, which are not recorded."""

    def test_net(self) -> None:
        """The net of nets.py learns more than the most frequent class."""
        result = mnist_exp.run("model=wide", "training.epochs=2", "tracking=off", quiet=True)
        assert result.metrics["val/accuracy"] > 3 * result.metrics["val/majority_accuracy"]

    def test_experiment(self) -> None:
        """So it does with the loss of losses.py and the callback of callbacks.py."""
        result = mnist_exp.run("experiment=focal", "training.epochs=2", "tracking=off", quiet=True)
        assert result.metrics["val/accuracy"] > 3 * result.metrics["val/majority_accuracy"]


if __name__ == "__main__":
    unittest.main()
