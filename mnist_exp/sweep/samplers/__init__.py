"""The oracles a study may ask for."""

from mnist_exp.sweep.samplers.base import Grid, Random, Replayable
from mnist_exp.sweep.samplers.hyperband import Hyperband
from mnist_exp.sweep.samplers.tpe import Tpe
from mnist_exp.sweep.study import Study

ORACLES = {"grid": Grid, "random": Random, "tpe": Tpe}


def oracle_of(study: Study) -> Replayable:
    """The oracle a study asks for, asked nothing yet."""
    given = study.space, study.settings.direction, study.settings.seed
    if study.algorithm == "hyperband":
        epochs = max(base.config.training.epochs for base in study.configs.bases.values())
        return Hyperband(*given, epochs=epochs, factor=study.settings.factor, iterations=study.settings.iterations)
    return ORACLES[study.algorithm](*given)
