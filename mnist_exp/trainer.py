"""Trains the net of a run: once, or once for each fold of its data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Training
from mnist_exp.data.splits import Splits
from mnist_exp.evaluation.history import STATE
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.log import log_line
from mnist_exp.tracking.active_run import ActiveRun
from mnist_exp.tracking.log_run import log_epoch
from mnist_exp.training.build import build_optimizer
from mnist_exp.training.contract import check_model
from mnist_exp.training.evaluate import check_accuracy
from mnist_exp.training.fit import fit, prepare_keras
from mnist_exp.training.trained import Trained, average, join

if TYPE_CHECKING:
    import keras

    from mnist_exp.training.augmentation import Augmentation


class Listener:
    """Receives the progress of a run. The base class ignores it. Folds, epochs and steps are counted from 1."""

    def on_data(self, splits: Splits) -> None:
        """The data set was loaded and split."""

    def on_start(self, active: ActiveRun) -> None:
        """The run exists in the store, and its folder on this machine."""

    def on_model(self, model: "keras.Model", config: RunConfig) -> None:
        """The model was built. Training starts next."""

    def on_fold(self, fold: int, folds: int) -> None:
        """The training of a fold starts. Before the first one comes `on_model`."""

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        """A training step ended."""

    def on_epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool | None:
        """An epoch ended. Return True to stop the training."""

    def on_fold_end(self, fold: int, evaluation: Evaluation) -> bool | None:
        """A fold ended. evaluation: of all folds so far. Return True to leave out the others."""

    def on_note(self, text: str) -> None:
        """Something that the user should know of the way in which the run is trained."""

    def on_evaluation(self) -> None:
        """Training ended. Evaluation starts next."""


class Trainer:
    """Trains the net of a config, and tells the run and the listener how it goes."""

    def __init__(self, config: RunConfig, active: ActiveRun, listener: Listener) -> None:
        self.config, self.active, self.listener = config, active, listener
        self.settings = config.settings(Training)

    def train(self, splits: Splits) -> tuple[Trained, Splits]:
        """Returns the trained net, and the data on which it was scored.

        Of data in folds a net is trained for each fold, without its images. Their answers for the images that each has
        not seen are those of the run, and its model is their average. If the listener leaves out folds, they are no
        part of the data that are returned.
        """
        if not splits.folds:
            return self._train(splits, self.active.checkpoints), splits
        trained: list[Trained] = []
        for number in range(1, len(splits.folds) + 1):
            folder = self.active.checkpoints if number == 1 else self.active.checkpoints / f"fold-{number}"
            trained.append(self._train(splits.fold(number), folder, number, len(splits.folds)))
            used = splits.first_folds(number)
            validation = join([one.validation for one in trained], used)
            if self.listener.on_fold_end(number, validation):
                break
        whole = average(trained, validation)
        for epoch, metrics in enumerate(whole.history.epochs, 1):
            log_epoch(self.active, epoch, metrics)
        return whole, used

    def _train(self, splits: Splits, checkpoints: Path, fold: int = 0, folds: int = 0) -> Trained:
        """Trains one net. fold: its number, of so many; 0: there are none."""
        active, listener = self.active, self.listener
        if fold > 1:  # it begins as the first one did
            prepare_keras(self.config.seed, self.settings)
        from mnist_exp.training.augmentation import build_augmentation
        from mnist_exp.training.features import FrozenNet

        with active.timer("building"):
            model = self.config.build("model", image_shape=splits.image_shape, classes=len(splits.class_names))
            optimizer = build_optimizer(self.config, self.settings.steps(len(splits.train)))
            augmentation = build_augmentation(self.config)
            if fold <= 1:
                self._check(model, augmentation, splits)
            self._begin(model, checkpoints, splits.class_names)
            frozen = None if augmentation else FrozenNet.of(model, self.settings.feature_cache)
            net, data = (frozen.head, frozen.replace_images(splits)) if frozen else (model, splits)
        if fold <= 1:
            log_line(f"{active.name}: {splits.name}; {model.count_params():,} parameters")
            listener.on_model(model, self.config)
        if fold:
            log_line(f"fold {fold} of {folds}")
            listener.on_fold(fold, folds)

        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> bool | None:
            log_line(f"epoch {epoch}: {format_metrics(metrics)}")
            log_epoch(active, epoch, metrics, f"fold_{fold}/" if fold else "")
            return listener.on_epoch(epoch, metrics)

        given = net, optimizer, data, self.settings, self.config.seed, checkpoints, augmentation
        history, validation = fit(*given, listener.on_step, on_epoch, self._note, active.timer)
        check_accuracy(history, {"val": validation})  # Keras must have reported the same
        return Trained(model, history, validation)

    def _check(self, model: "keras.Model", augmentation: "Augmentation | None", splits: Splits) -> None:
        """Raises ConfigError for what cannot be trained, and notes what cannot be resumed exactly."""
        from mnist_exp.training.own_parts import check_loss, check_metrics

        classes = len(splits.class_names)
        check_model(model, splits.train.images, classes, self.active.folder)
        check_loss(self.settings, classes)
        check_metrics(self.settings, classes)
        if names := augmentation.find_unrepeatable(splits.train.images[:2]) if augmentation else []:
            why = "draw with a keras.random.SeedGenerator that is an attribute of its layer"
            self._note(f"{', '.join(names)} changes images otherwise if the training is resumed: {why}")

    def _begin(self, model: "keras.Model", checkpoints: Path, class_names: Sequence[str]) -> None:
        """Freezes the layers of training.freeze, and copies the weights of training.start_from unless it is resumed."""
        from mnist_exp.models.backbones import give_up_sharing
        from mnist_exp.training.parent import copy_weights, freeze_layers, name_some

        if self.settings.freeze is not None or self.settings.start_from is not None:
            give_up_sharing()
        if self.settings.freeze is not None:
            freeze_layers(model, self.settings.freeze)
        if self.settings.start_from is not None and not (checkpoints / STATE).is_file():
            name, parent, its_classes = self.active.load_parent(self.settings.start_from)
            left = copy_weights(model, parent, tuple(class_names) == tuple(its_classes))
            self._note(f"begins with the weights of {name}" + (f", but for {name_some(left)}" if left else ""))

    def _note(self, text: str) -> None:
        log_line(text)
        self.listener.on_note(text)


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Returns metrics as the log of a run shows them."""
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
