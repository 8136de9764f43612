"""Optimizers as plain functions of their keys. Keras loads only when one is built."""

from typing import TYPE_CHECKING, TypeAlias

from mnist_exp.config.schema import NotNegative, Positive, UpToOne

if TYPE_CHECKING:
    from keras.optimizers import Optimizer
    from keras.optimizers.schedules import LearningRateSchedule

    Rate: TypeAlias = float | LearningRateSchedule


def adam(rate: "Rate", *, beta_1: UpToOne, beta_2: UpToOne, epsilon: Positive) -> "Optimizer":
    """Adam (Kingma and Ba 2015)."""
    from keras.optimizers import Adam

    return Adam(rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def adamw(
    rate: "Rate", *, weight_decay: NotNegative, beta_1: UpToOne, beta_2: UpToOne, epsilon: Positive
) -> "Optimizer":
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    from keras.optimizers import AdamW

    return AdamW(rate, weight_decay=weight_decay, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def nadam(rate: "Rate", *, beta_1: UpToOne, beta_2: UpToOne, epsilon: Positive) -> "Optimizer":
    """Adam with Nesterov momentum (Dozat 2016)."""
    from keras.optimizers import Nadam

    return Nadam(rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def adadelta(rate: "Rate", *, rho: UpToOne, epsilon: Positive) -> "Optimizer":
    """Adadelta (Zeiler 2012)."""
    from keras.optimizers import Adadelta

    return Adadelta(rate, rho=rho, epsilon=epsilon)


def sgd(rate: "Rate", *, momentum: UpToOne, nesterov: bool) -> "Optimizer":
    """Stochastic gradient descent, with momentum where it is above 0."""
    from keras.optimizers import SGD

    return SGD(rate, momentum=momentum, nesterov=nesterov)


def rmsprop(rate: "Rate", *, rho: UpToOne, momentum: UpToOne, epsilon: Positive) -> "Optimizer":
    """RMSprop (Tieleman and Hinton 2012)."""
    from keras.optimizers import RMSprop

    return RMSprop(rate, rho=rho, momentum=momentum, epsilon=epsilon)
