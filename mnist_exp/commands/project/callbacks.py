"""Callbacks of this project."""

import keras


class StopAbove(keras.callbacks.Callback):
    """Ends the training when the validation accuracy is high enough. It remembers nothing between epochs."""

    def __init__(self, accuracy: float) -> None:
        super().__init__()
        self.accuracy = accuracy

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the metrics of the epoch."""
        if (logs or {}).get("val_accuracy", 0.0) >= self.accuracy:
            self.model.stop_training = True

    def get_state(self) -> dict:
        """What a resumed training has to know: nothing."""
        return {}

    def set_state(self, state: dict) -> None:
        """Takes what get_state returned."""
