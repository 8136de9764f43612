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
from mnist_exp.training.program import Data, get_program
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

    def fit(self, first: int, epochs: int, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Trains the epochs from `first` to `epochs`, counted from 0, the last one exclusive."""
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
        cache = open_cache() if self.settings.program_cache else None
        self.program = get_program(self.model, self.data, self.order, self.mode, cache)

    def fit(self, first: int, epochs: int, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Trains the epochs from `first` to `epochs`, counted from 0, the last one exclusive."""
        model, steps = self.model, self.program.count_windows(self.order)
        heard = keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs, steps=steps, verbose=0)
        model.stop_training = False
        heard.on_train_begin()
        for epoch in range(first, epochs):
            model.reset_metrics()
            heard.on_epoch_begin(epoch)
            self.order.begin(epoch)
            logs: dict[str, float] = {}
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
