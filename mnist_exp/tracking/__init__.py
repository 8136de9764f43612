"""Where runs are recorded: in a folder while they last, and in MLflow, which only this package knows."""

from mnist_exp.tracking.record import Input, Record
from mnist_exp.tracking.settings import Tracking, existing_store, load_model, recorded_config, start, store_of

__all__ = ["Input", "Record", "Tracking", "existing_store", "load_model", "recorded_config", "start", "store_of"]
