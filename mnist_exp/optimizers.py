"""Optimizers as plain functions of their keys; keras loads only when one is built."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from mnist_exp import optimizers
from mnist_exp.config.run_config import build

if TYPE_CHECKING:
    import keras


from typing import TYPE_CHECKING

from mnist_exp.config.schema import NotNegative, Positive, Schedule, Share, UpToOne

if TYPE_CHECKING:
    from keras.optimizers import Optimizer
    from keras.optimizers.schedules import LearningRateSchedule


def learning_rate_schedule(
    steps: int, learning_rate: Positive, schedule: Schedule, warmup: Share
) -> "float | LearningRateSchedule":
    """The learning rate over `steps` batches: a number, or a cosine that ends at zero.

    warmup: share of the steps in which the cosine first rises linearly from zero (Loshchilov and Hutter 2017).
    """
    if schedule == "constant":
        return learning_rate
    from keras.optimizers.schedules import CosineDecay

    rising = round(warmup * steps)
    if not rising:
        return CosineDecay(learning_rate, steps)
    return CosineDecay(0.0, steps - rising, warmup_target=learning_rate, warmup_steps=rising)


def adam(rate: "float | LearningRateSchedule", *, beta_1: UpToOne, beta_2: UpToOne, epsilon: Positive) -> "Optimizer":
    """Adam (Kingma and Ba 2015)."""
    from keras.optimizers import Adam

    return Adam(rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def adamw(
    rate: "float | LearningRateSchedule",
    *,
    weight_decay: NotNegative,
    beta_1: UpToOne,
    beta_2: UpToOne,
    epsilon: Positive,
) -> "Optimizer":
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    from keras.optimizers import AdamW

    return AdamW(rate, weight_decay=weight_decay, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def nadam(rate: "float | LearningRateSchedule", *, beta_1: UpToOne, beta_2: UpToOne, epsilon: Positive) -> "Optimizer":
    """Adam with Nesterov momentum (Dozat 2016)."""
    from keras.optimizers import Nadam

    return Nadam(rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def adadelta(rate: "float | LearningRateSchedule", *, rho: UpToOne, epsilon: Positive) -> "Optimizer":
    """Adadelta (Zeiler 2012)."""
    from keras.optimizers import Adadelta

    return Adadelta(rate, rho=rho, epsilon=epsilon)


def sgd(rate: "float | LearningRateSchedule", *, momentum: UpToOne, nesterov: bool) -> "Optimizer":
    """Stochastic gradient descent, with momentum where it is above 0."""
    from keras.optimizers import SGD

    return SGD(rate, momentum=momentum, nesterov=nesterov)


def rmsprop(rate: "float | LearningRateSchedule", *, rho: UpToOne, momentum: UpToOne, epsilon: Positive) -> "Optimizer":
    """RMSprop (Tieleman and Hinton 2012)."""
    from keras.optimizers import RMSprop

    return RMSprop(rate, rho=rho, momentum=momentum, epsilon=epsilon)


def build_optimizer(section: DictConfig, steps: int) -> "keras.optimizers.Optimizer":
    """The optimizer, its learning rate scheduled over `steps` batches."""
    keys = dict(section)
    schedule = {key: keys.pop(key) for key in ("learning_rate", "schedule", "warmup")}
    return build(keys, optimizers.learning_rate_schedule(steps, **schedule))
