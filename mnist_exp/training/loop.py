"""The loop over epochs: with a compiled program, or batch by batch with Keras's own `fit`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from mnist_exp.config.schema import Training
from mnist_exp.data.dataset import ImageSet
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.training.batches import Batches, BatchOrder
from mnist_exp.training.evaluate import EVALUATION_BATCH, encode_labels, evaluate
from mnist_exp.training.modes import Mode
from mnist_exp.training.program import Data, count_windows, get_program
from mnist_exp.training.program_cache import open_cache


@dataclass
class PlainLoop:
    """Trains a compiled model with `fit`. images: of the training. weights: of these, float32 (n,), or None."""

    model: keras.Model
    images: ImageSet
    validation: ImageSet
    class_names: tuple[str, ...]
    settings: Training
    seed: int
    weights: np.ndarray | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.order = BatchOrder(len(self.images), self.settings.batch_size, self.seed)
        weights = () if self.weights is None else (self.weights,)
        self.train = self.images.images, self._encode(self.images), *weights
        self.checked = self.validation.images, self._encode(self.validation)

    def begin(self, first: int, epochs: int, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Prepares the training of the epochs from `first` to `epochs`, counted from 0, the last one exclusive."""
        self._wanted = first, epochs, callbacks

    def fit(self) -> None:
        """Trains. Without an epoch, callbacks hear all the same that the training begins and ends."""
        first, epochs, callbacks = self._wanted
        begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: self.order.begin(epoch))
        self.model.fit(
            Batches(self.train, self.order),
            epochs=epochs,
            initial_epoch=first,
            shuffle=False,  # the order is drawn
            validation_data=self.checked,
            validation_batch_size=EVALUATION_BATCH,
            callbacks=[begin, *callbacks],
            verbose=0,
        )

    def evaluate(self) -> Evaluation:
        """Returns what the model, with its weights as they are now, answers for the validation images."""
        return evaluate(self.model, self.validation, self.class_names)

    def _encode(self, part: ImageSet) -> np.ndarray:
        return encode_labels(part.labels, self.model.loss, len(self.class_names))


@dataclass
class ProgramLoop(PlainLoop):
    """Trains with a compiled program. Callbacks are called as by `fit`, with a window for a batch."""

    mode: Mode

    def __post_init__(self) -> None:
        super().__post_init__()
        self.data = Data.of(self.train, self.checked, EVALUATION_BATCH)

    def begin(self, first: int, epochs: int, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Prepares the training of the epochs from `first` to `epochs`, counted from 0, the last one exclusive.

        As in `fit`, callbacks hear of the beginning before the net is traced, so what they change there has an effect.
        """
        steps = count_windows(self.order, self.mode)
        self._heard = keras.callbacks.CallbackList(callbacks, model=self.model, epochs=epochs, steps=steps, verbose=0)
        self._epochs = range(first, epochs)
        self.model.stop_training = False
        self._heard.on_train_begin()
        if self._epochs:
            self._begin_epoch(first)
        cache = open_cache() if self.settings.program_cache else None
        self.program = get_program(self.model, self.data, self.order, self.mode, cache)

    def _begin_epoch(self, epoch: int) -> None:
        self.model.reset_metrics()
        self._heard.on_epoch_begin(epoch)

    def fit(self) -> None:
        """Trains. Without an epoch, callbacks hear all the same that the training begins and ends."""
        model, heard = self.model, self._heard
        logs: dict[str, float] = {}
        for epoch in self._epochs:
            if epoch > self._epochs.start:
                self._begin_epoch(epoch)
            self.order.begin(epoch)
            for number, logs in enumerate(self.program.train(self.order, self.data)):
                heard.on_train_batch_end(number, logs)
            heard.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        heard.on_train_end(logs)

    def evaluate(self) -> Evaluation:
        """Returns what the model, with its weights as they are now, answers for the validation images."""
        answers = self.program.evaluate(self.order, self.data)
        return Evaluation(
            self.validation.labels,
            answers.probabilities,
            self.class_names,
            logits=answers.logits,
            loss=answers.metrics["loss"],
        )
