"""Trials on the workers of a Dask cluster. Each worker runs one trial at a time. Workers may join and leave."""

import os
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Future, InvalidStateError
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from mnist_exp.config.schema import ClusterExecutor, DaskExecutor
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.secrets import remember
from mnist_exp.sweep.executors.base import THREADS, Preempted, TrialExecutor
from mnist_exp.sweep.trial import Job
from mnist_exp.sweep.worker import is_cancelled, on_start
from mnist_exp.tracking.environment import usable_cores

if TYPE_CHECKING:
    from distributed import Client, Security

LOOK, FRESH = 1.0, 0.2  # seconds between looks at the workers, and before a trial is sent to one
ANSWER = 15  # seconds in which a scheduler must answer
PATIENCE = 300  # seconds without a scheduler after which a sweep ends, to be resumed
SCHEDULER = "must be the address of a Dask scheduler, such as tcp://host:8786"


class Cluster(TrialExecutor):
    """The workers of a scheduler. A trial is sent to the address of one worker, which has no other trial.

    So it is known which trial ran on a worker that died. Dask itself would send several trials to one worker and count
    its death against each of them. Whether a trial runs again is decided here and not by settings of the scheduler.

    started: a cluster that ends with this executor. shared: whether workers on other machines can reach the store.
    """

    retry_alone, max_deaths = False, 3

    def __init__(
        self, keys: ClusterExecutor, address: str, security: "Security | None", *, shared: bool, started: Any = None
    ) -> None:
        self.keys, self.shared, self._started = keys, shared, started
        self._address, self._security = address, security
        remember(address)
        self._busy: dict[Future, tuple[str, str]] = {}  # address and id of the worker
        self._workers: dict[str, Mapping[str, Any]] = {}
        self._topic = f"mnist_exp-started-{uuid.uuid4().hex}"  # of the events of workers whose trial begins
        self._answered = self._looked = float("-inf")
        self._client = self._connected()
        self.refresh()

    @property
    def width(self) -> int:  # type: ignore[override]
        """The number of workers, at most as many as executor.workers allows."""
        return min(len(self._workers), self.keys.workers or len(self._workers))

    def refresh(self, age: float = LOOK) -> None:
        """Updates the list of workers, if it is older than `age` seconds.

        Raises ConfigError if a worker cannot be used or if no scheduler answers for minutes.
        """
        if time.monotonic() - self._looked < age:
            return
        self._looked = time.monotonic()
        try:
            if self._client.status == "closed":
                self._client = self._connected()
            if self._client.status != "running":
                raise OSError("connecting")
            found = self._client.scheduler_info()["workers"]
        except (OSError, ConfigError) as error:  # trials under way are cancelled by the client
            self._workers = {}
            if time.monotonic() - self._answered > PATIENCE:
                remedy = "start it again and resume the sweep with sweep.resume=latest"
                problem = Problem(str(self._address), "no longer answers as a scheduler", remedy=remedy)
                raise ConfigError(problem) from error
            return
        self._answered = time.monotonic()
        self._workers = {address: worker for address, worker in found.items() if self._usable(worker)}
        taken = {address for address, _ in self._busy.values()}
        paused = [address for address, worker in found.items() if worker["status"] == "paused"]
        self._renew([address for address in paused if address not in taken])
        for future, (address, identity) in list(self._busy.items()):
            if found.get(address, {}).get("id") != identity:
                _settle(future, BrokenExecutor(f"the worker {address} is gone"))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        self.refresh(FRESH)
        taken = {address for address, _ in self._busy.values()}
        address = next((address for address in self._workers if address not in taken), None)
        if address is None:
            future.set_exception(Preempted("the worker left before it was given the trial"))
            return future
        worker = self._workers[address]
        beside = Counter(worker["host"] for worker in self._workers.values())[worker["host"]]
        resources = {"GPU": self.keys.gpus} if self.keys.gpus else None
        slot = self._client.get_executor(workers=[address], pure=False, retries=0, resources=resources)
        sent = slot.submit(_on_worker, fn, beside, self._topic, self.keys.dataset_path, *args, **kwargs)
        self._busy[future] = address, worker["id"]
        future.add_done_callback(lambda done: self._busy.pop(done, None))
        future.add_done_callback(lambda done: sent.cancel())
        sent.add_done_callback(lambda sent: _pass_on(sent, future))
        return future

    def kill(self, future: Future) -> None:
        """Ends the worker of this trial."""
        address, _ = self._busy.get(future, (None, None))
        _settle(future, Preempted("the trial was ended"))
        self._renew([address] if address else [])

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._client.close()
        if self._started:
            self._started.close()

    def _renew(self, addresses: list[str]) -> None:
        """Ends these workers; their nannies, if they have one, start others. Dask pauses those short of memory."""
        if addresses:
            with suppress(OSError, TimeoutError, RuntimeError, ValueError):
                self._client.restart_workers(addresses, timeout=ANSWER, raise_for_error=False)

    def _connected(self) -> "Client":
        from distributed import Client

        if not re.fullmatch(r"\w+://.+:\d+", str(self._address)):  # Dask would try it for half a minute
            raise ConfigError(Problem("executor.address", SCHEDULER, self._address))
        try:
            client = Client(self._address, security=self._security, timeout=ANSWER, set_as_default=False)
        except (OSError, ValueError) as error:
            rule = f"{SCHEDULER}, but at {self._address} none answers: {' '.join(str(error).split())}"
            raise ConfigError(Problem("executor.address", rule)) from error
        client.subscribe_topic(self._topic, self._set_running)
        self._answered = time.monotonic()
        return client

    def _set_running(self, event: tuple[float, str]) -> None:
        """Receives the time and the address of a worker whose trial begins."""
        _, sender = event
        for future, (address, _) in list(self._busy.items()):
            if address == sender and not future.running():
                with suppress(RuntimeError):  # it has ended since
                    future.set_running_or_notify_cancel()

    def _usable(self, worker: Mapping[str, Any]) -> bool:
        if not self.shared and worker["host"] not in _own_addresses():
            remedy = "give tracking.uri=http://HOST:5000, the team's server (docs/team.md)"
            rule = "cannot write to a SQLite store on this machine"
            raise ConfigError(Problem(f"a worker on {worker['host']}", rule, remedy=remedy))
        return worker["status"] == "running" and worker["resources"].get("GPU", 0) >= self.keys.gpus


def read_security(keys: DaskExecutor) -> "Security | None":
    """Returns the TLS settings of these keys, else those of the user's Dask config; None if there are none.

    Raises ConfigError if some are missing.
    """
    from distributed import Security

    given = [keys.tls_ca, keys.tls_cert, keys.tls_key]
    if not any(given) and (configured := Security()).tls_client_key:
        return configured
    if not all(given):
        if any(given) or str(keys.address).startswith("tls://"):
            rule = "needs executor.tls_ca, tls_cert and tls_key, or those of Dask's config"
            raise ConfigError(Problem(f"the scheduler {keys.address}", rule, given))
        return None
    return Security(
        tls_ca_file=keys.tls_ca, tls_client_cert=keys.tls_cert, tls_client_key=keys.tls_key, require_encryption=True
    )


def _own_addresses() -> set[str]:
    return {"localhost", *(one.address for several in psutil.net_if_addrs().values() for one in several)}


def _pass_on(sent: Future, future: Future) -> None:
    """Passes the result of the task on: BrokenExecutor if its worker died, Preempted if the scheduler went away."""
    if sent.cancelled():  # the connection to the scheduler was lost
        _settle(future, Preempted("the scheduler went away"))
    elif error := sent.exception():
        killed = type(error).__name__ in ("KilledWorker", "NoValidWorkerError")
        _settle(future, BrokenExecutor(str(error)) if killed else error)
    else:
        with suppress(InvalidStateError):
            future.set_result(sent.result())


def _settle(future: Future, error: BaseException) -> None:
    with suppress(InvalidStateError):
        future.set_exception(error)


def _on_worker(fn: Callable[..., Any], beside: int, topic: str, dataset_path: str | None, job: Job) -> Any:
    """Runs a trial in this worker's thread, with its own share of the cores, folder and data.

    The trial ends within a batch if its result is not wanted any more. beside: the number of workers on this machine.
    topic: of the event that tells the parent that the trial begins.
    """
    from distributed import get_worker

    worker = get_worker()
    task = worker.get_current_task()
    if "tensorflow" not in sys.modules:
        os.environ |= dict.fromkeys(THREADS, str(_threads(beside)))
    data = {} if dataset_path is None else {"dataset.path": dataset_path}
    config = job.config.with_values({"tracking.folder": str(Path(worker.local_directory, "runs")), **data})

    def nobody_waits() -> bool:
        known = worker.state.tasks.get(task)
        return known is None or known.state in ("cancelled", "resumed", "released", "forgotten")

    def run() -> Any:
        is_cancelled.set(nobody_waits)
        on_start.set(lambda: worker.log_event(topic, worker.address))
        return fn(replace(job, config=config))

    return copy_context().run(run)


def _threads(beside: int) -> int:
    """The number of cores that this process was given, or its share of those of the machine."""
    own, all_of_them = usable_cores(), os.cpu_count() or 1
    return own if own < all_of_them else max(1, all_of_them // beside)
