"""Builds what a training is made of from its config: optimizer, loss, metrics and callbacks. Keras loads on use."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mnist_exp.config.components import TARGET, is_function, make
from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Optimizer, Training
from mnist_exp.config.targets import import_target
from mnist_exp.errors import ConfigError, Problem

if TYPE_CHECKING:
    import keras
    from keras.optimizers.schedules import LearningRateSchedule

    Rate: TypeAlias = float | LearningRateSchedule

TARGETS = "mnist_exp_targets"  # the attribute of a loss that says what it compares with
RESERVED = ("loss", "accuracy", "cross_entropy")  # names of metrics that every run has


def build_optimizer(config: RunConfig, steps: int) -> "keras.optimizers.Optimizer":
    """Builds the optimizer of a config. Its learning rate is scheduled over `steps` batches.

    Raises ConfigError if the `_target_` makes something else.
    """
    import keras

    settings, target = config.settings(Optimizer), config.values["optimizer"][TARGET]
    rate, arguments = schedule_learning_rate(settings, steps), inspect.signature(import_target(target)).parameters
    named = "rate" if "rate" in arguments else "learning_rate"
    if named not in arguments and not any(one.kind is one.VAR_KEYWORD for one in arguments.values()):
        rule = f"must take learning_rate, but {target} takes {', '.join(arguments) or 'nothing'}"
        raise ConfigError(Problem(f"optimizer.{TARGET}", rule, remedy="such as keras.optimizers.Lion"))
    optimizer = config.build("optimizer", **{named: rate})
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        rule = f"must make an optimizer of Keras's, but {target} made a {type(optimizer).__name__}"
        raise ConfigError(Problem(f"optimizer.{TARGET}", rule, remedy="such as keras.optimizers.Lion"))
    for name in ("clipnorm", "use_ema", "ema_momentum"):
        if (value := getattr(settings, name)) != Optimizer.model_fields[name].default:
            setattr(optimizer, name, value)
    return optimizer


def schedule_learning_rate(settings: Optimizer, steps: int) -> "Rate":
    """Returns the learning rate over `steps` batches: a number, or a schedule of Keras's.

    A cosine ends at zero. A schedule with a `_target_` begins at settings.learning_rate and lasts for the whole
    training, unless its entry says otherwise. settings.warmup: the share of the steps in which the rate first rises
    linearly from zero (Goyal et al. 2017; before a cosine, Loshchilov and Hutter 2017).
    """
    rising = min(round(settings.warmup * steps), steps - 1)  # what follows needs a step
    if settings.schedule == "cosine":
        from keras.optimizers.schedules import CosineDecay

        if not rising:
            return CosineDecay(settings.learning_rate, steps)
        return CosineDecay(0.0, steps - rising, warmup_target=settings.learning_rate, warmup_steps=rising)
    after: Rate = settings.learning_rate
    if isinstance(settings.schedule, dict):
        from mnist_exp.training.schedules import to_schedule

        begins = {"initial_learning_rate": settings.learning_rate, "learning_rate": settings.learning_rate}
        lasts = {"decay_steps": steps - rising, "steps": steps - rising}
        after = to_schedule(make("optimizer.schedule", settings.schedule, **begins, **lasts))
    if not rising:
        return after
    from mnist_exp.training.schedules import Warmup

    return Warmup(after, rising)


def build_loss(settings: Training) -> "keras.losses.Loss":
    """Builds the loss. A plain function of targets and probabilities becomes a loss of Keras's."""
    import keras

    if settings.loss == "categorical_crossentropy":
        return keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
    if not isinstance(settings.loss, dict):
        return keras.losses.SparseCategoricalCrossentropy()
    made, name = make("training.loss", settings.loss), _last_name(settings.loss)
    if not isinstance(made, keras.losses.Loss):
        if not is_function(made):
            rule = "must make a loss of Keras's, or be a function of targets and probabilities"
            raise ConfigError(Problem("training.loss", rule, type(made).__name__))
        from mnist_exp.training.losses import FunctionLoss

        made = FunctionLoss(made, name=name)
    setattr(made, TARGETS, _targets_by_name(name) if settings.targets == "auto" else settings.targets)
    return made


def takes_integers(loss: "keras.losses.Loss") -> bool:
    """Whether a loss compares with labels as integers (n,), else with one-hot ones, float32 (n, classes)."""
    return getattr(loss, TARGETS, _targets_by_name(type(loss).__name__)) == "integers"


def _targets_by_name(name: str) -> str:
    """The form of the targets for a loss or a metric of this name, which Keras's begin with `Sparse` or `sparse`."""
    return "integers" if name.lower().startswith("sparse") else "one_hot"


def _last_name(entry: Mapping[str, Any]) -> str:
    return str(entry[TARGET]).rpartition(".")[2]


def build_metrics(settings: Training) -> list["keras.metrics.Metric"]:
    """Builds the metrics of training.metrics. Each gets the targets that it needs, also if the loss needs others.

    Raises ConfigError for names that are taken.
    """
    import keras

    built: list[keras.metrics.Metric] = []
    of_loss = takes_integers(build_loss(settings)) if settings.metrics else None
    for place, entry in enumerate(settings.metrics):
        made = make("training.metrics", entry)
        of_keras, name = type(made).__module__.startswith("keras."), type(made).__name__
        if not isinstance(made, keras.metrics.Metric):
            if not is_function(made):
                rule = "must make a metric of Keras's, or be a function of targets and probabilities"
                raise ConfigError(Problem(f"training.metrics[{place}]", rule, type(made).__name__))
            of_keras, name = str(entry[TARGET]).startswith("keras."), _last_name(entry)
            made = keras.metrics.MeanMetricWrapper(made, name=name)
        if made.name in (*RESERVED, *(metric.name for metric in built)):
            rule = "must have a name that no other metric has"
            raise ConfigError(Problem(f"training.metrics[{place}].name", rule, made.name, "give name: OTHER"))
        wanted = _targets_by_name(name) if of_keras or settings.targets == "auto" else settings.targets
        if (integers := wanted == "integers") != of_loss:
            from mnist_exp.training.target_forms import WithTargets

            made = WithTargets(made, integers)
        built.append(made)
    return built


def build_callbacks(settings: Training) -> list["keras.callbacks.Callback"]:
    """Builds the callbacks of training.callbacks. Raises ConfigError for an entry that makes none."""
    import keras

    built = []
    for place, entry in enumerate(settings.callbacks):
        made = make("training.callbacks", entry)
        if not isinstance(made, keras.callbacks.Callback):
            rule = "must make a callback of Keras's"
            raise ConfigError(Problem(f"training.callbacks[{place}]", rule, type(made).__name__))
        built.append(made)
    return built


def weigh_classes(settings: Training, labels: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray | None:
    """Returns the weight of each training image, float32 (n,), whose mean is 1 if balanced; None without weights.

    Raises ConfigError for a class that does not exist.
    """
    given: Mapping[str, float] | str | None = settings.class_weight
    if given is None:
        return None
    counts = np.bincount(labels, minlength=len(class_names))
    if given == "balanced":
        weights = len(labels) / ((counts > 0).sum() * np.maximum(counts, 1))
    else:
        assert isinstance(given, Mapping)
        if unknown := [name for name in given if name not in class_names]:
            rule = f"must name classes of the data set: {', '.join(class_names[:20])}"
            raise ConfigError(Problem("training.class_weight", rule, unknown))
        weights = np.array([given.get(name, 1.0) for name in class_names])
    return weights[labels].astype(np.float32)
