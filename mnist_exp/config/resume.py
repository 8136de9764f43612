"""training.resume: the config of an interrupted run, as it was recorded."""

from collections.abc import Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

from mnist_exp import tracking
from mnist_exp.config.compose import OF_SWEEPS, by_key
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import ConfigError

BESIDE = ("training.resume", "training.epochs", "tracking.uri", "tracking.folder", "tracking.experiment")


def continued(
    cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str]
) -> tuple[DictConfig, Mapping[str, str]]:
    """The config and choices themselves, or where training.resume names a run, its recorded ones with what may change.

    Raises ConfigError for an override that a single or resumed run cannot follow, TrackingError for a run that cannot
    go on.
    """
    given = by_key(overrides)
    if of_sweeps := [override for key, override in given.items() if key.split(".")[0] in ("sweeps", *OF_SWEEPS)]:
        raise ConfigError(f"{', '.join(of_sweeps)} is for sweeps, but -m is missing: python -m mnist_exp -m ...")
    if cfg.training.resume is None:
        return cfg, choices
    if not cfg.tracking.enabled:
        raise ConfigError("training.resume needs the tracking store that knows the run, but got tracking=off")
    if other := [override for key, override in given.items() if key not in BESIDE]:
        raise ConfigError(
            "a resumed run keeps its recorded config: beside training.resume it takes only "
            f"{', '.join(BESIDE[1:])}, but got {', '.join(other)}"
        )
    wanted = cfg.training.resume
    if not isinstance(wanted, str):  # the start of an id that reads as a number, such as 12345678 or 1234e567
        wanted = given["training.resume"].partition("=")[2]
    run_id, values, recorded_choices = tracking.read_resumable(Tracking(**cfg.tracking), wanted)
    old = OmegaConf.create(values)
    old.training.resume = run_id
    old.tracking = cfg.tracking
    if "training.epochs" in given:
        old.training.epochs = cfg.training.epochs
    return old, recorded_choices
