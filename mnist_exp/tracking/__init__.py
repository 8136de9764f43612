"""Where runs are recorded: in a folder while they last, and in MLflow, which only this package knows."""

from mnist_exp.config.schema import Tracking
from mnist_exp.tracking.active_run import Input, Record
from mnist_exp.tracking.registry import load_model
from mnist_exp.tracking.start import recorded_config, start
from mnist_exp.tracking.store import existing_store, store_of

__all__ = ["Input", "Record", "Tracking", "existing_store", "load_model", "recorded_config", "start", "store_of"]
