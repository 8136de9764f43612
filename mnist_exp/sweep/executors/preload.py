"""Imports the libraries of a trial. Imported by worker processes and by the fork server, and by nothing else.

The fork server imports it once; a worker that it forks has the libraries at once. A spawned worker imports it itself.
It runs no operation of TensorFlow and leaves no thread: a fork copies only one thread, and a lock that another thread
holds would stay locked for ever. The libraries start three threads, which are prevented here (numpy's and scipy's
OpenBLAS, pyarrow's jemalloc). TensorFlow starts its own with the first operation, in the worker.
"""

import faulthandler
import gc
import importlib
import os
import signal

LIBRARIES = ["tensorflow", "keras", "mlflow.keras", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store"]
LIBRARIES += ["sklearn.datasets", "sklearn.metrics", "matplotlib.backends.backend_agg"]
LIBRARIES += ["mnist_exp.evaluation.matrix_image", "mnist_exp.training.checkpoint", "mnist_exp.training.loop"]
LIBRARIES += ["mnist_exp.models", "mnist_exp.optimizers", "mnist_exp.training.features", "mnist_exp.training.parent"]
LIBRARIES += ["mnist_exp.training.own_parts"]
LIBRARIES += ["mnist_exp.models.backbones", "mnist_exp.tracking.environment", "mnist_exp.tracking.mlflow_run"]
LIBRARIES += ["mnist_exp.sweep.worker"]
PARENT_NAMES = frozenset(os.environ)  # before any library adds a variable of its own

gc.disable()  # what is imported here stays
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; only the parent answers
# The terminal belongs to the parent; a trial writes its output to its own log.
_nowhere = os.open(os.devnull, os.O_RDWR)
for _descriptor in (0, 1, 2):
    os.dup2(_nowhere, _descriptor)
os.close(_nowhere)
os.environ |= {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
faulthandler.enable(file=2)  # a crash of a library's own code says where it was
_parent = os.getppid()
for _library in LIBRARIES:
    try:
        importlib.import_module(_library)
    except Exception as error:  # the fork server lives on after an ImportError, so that a worker can report it
        raise ImportError(f"{_library} cannot be imported: {type(error).__name__}: {error}") from error
    if os.getppid() != _parent:  # it has ended: nobody needs these imports
        os._exit(0)
gc.collect()
gc.freeze()  # so that a collection in a worker does not write to, and so copy, the memory it shares with the server
gc.enable()
