"""Loads the data set of a config and splits it."""

from omegaconf import DictConfig

from mnist_exp import data
from mnist_exp.config.run_config import build
from mnist_exp.data.splits import Splits


def load_data(dataset: DictConfig) -> Splits:
    """Loads and splits what the section `dataset` names."""
    keys = dict(dataset)
    how = {key: keys.pop(key) for key in ("name", "validation", "method", "test", "limit", "seed")}
    return data.split(build(keys), **how)


def digest_of(cfg: DictConfig) -> str:
    """That of the data set, which is loaded and checked on the way."""

    return load_data(cfg.dataset).digest
