"""The process that writes a run, and whether it is alive."""

import os
import socket
from collections.abc import Mapping

import psutil

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import StoredRun


def process_tags() -> dict[str, str]:
    """Returns tags that identify this process: host, pid and start time in seconds. `is_alive` reads them."""
    started = psutil.Process().create_time()
    return {tags.HOST: socket.gethostname(), tags.PID: str(os.getpid()), tags.STARTED: str(started)}


def is_alive(values: Mapping[str, str]) -> bool:
    """Returns whether the process with these tags lives on this host."""
    try:
        process = psutil.Process(int(values[tags.PID]))
        # A zombie is dead; if nobody collects it, as in many containers, it keeps its number for good.
        same_start = abs(process.create_time() - float(values[tags.STARTED])) < 2
        return process.status() != psutil.STATUS_ZOMBIE and same_start
    except psutil.AccessDenied:  # a process of another user, of which nothing is known
        return True
    except (psutil.NoSuchProcess, ValueError):
        return False


def is_unfinished_copy(values: Mapping[str, str]) -> bool:
    """Returns whether the run with these tags is a copy of one that lives in another store, or is not copied whole."""
    return tags.COPIED_FROM in values and tags.COPIED_WHOLE not in values


def check_not_running(run: StoredRun) -> None:
    """Raises TrackingError if the process of the run is alive, is on another host, or belongs to another store."""
    host = run.tags.get(tags.HOST)
    if is_unfinished_copy(run.tags):
        rule = "is a copy of a run that was running, or that was not copied to its end"
        raise TrackingError(
            Problem(run.label, rule, remedy="resume it in its own store, or copy it again when it ended")
        )
    if run.status == "RUNNING" and (host != socket.gethostname() or is_alive(run.tags)):
        rule = f"is still running on {host}, pid {run.tags.get(tags.PID)}"
        raise TrackingError(Problem(run.label, rule, remedy="end it first"))


def end_dead_runs(store: Store) -> None:
    """Sets runs of this host to KILLED that are RUNNING in the store and whose process is gone."""
    with store_errors(store.uri):
        for run in list_runs(store, f"attributes.status = 'RUNNING' and tags.{tags.HOST} = '{socket.gethostname()}'"):
            has_process = {tags.PID, tags.STARTED} <= run.tags.keys() and not is_unfinished_copy(run.tags)
            if has_process and not is_alive(run.tags):
                store.client.set_tag(run.id, tags.ENDED_BY, "its process was gone")
                store.client.set_terminated(run.id, "KILLED")
