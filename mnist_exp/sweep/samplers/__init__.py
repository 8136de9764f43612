"""The samplers that a study can name."""

from mnist_exp.sweep.samplers import hyperband
from mnist_exp.sweep.samplers.base import GridSampler, RandomSampler, Sampler
from mnist_exp.sweep.samplers.hyperband import HyperbandSampler
from mnist_exp.sweep.samplers.tpe import TpeSampler
from mnist_exp.sweep.study import Study

SAMPLERS = {"grid": GridSampler, "random": RandomSampler, "tpe": TpeSampler}


def create_sampler(study: Study) -> Sampler:
    """Returns the sampler that a study names, before its first proposal."""
    given = study.space, study.objective, study.settings.seed
    sampler: Sampler
    if study.algorithm == "hyperband":
        factor, iterations = study.settings.factor or hyperband.FACTOR, study.settings.iterations
        sampler = HyperbandSampler(*given, max_epochs=study.epochs, factor=factor, hyperband_iterations=iterations)
    else:
        sampler = SAMPLERS[study.algorithm](*given)
    sampler.queue.extend(queued for queued in study.queue if study.space.holds(queued.values))
    return sampler
