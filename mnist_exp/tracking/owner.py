"""The process that writes a run: whether it is alive, and which one runs a sweep."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import StoredRun, fetch_run

OWNER = "owner/"  # a parameter of a sweep, owner/1 and so on: the processes that have run it, one after the other
BEAT = 10.0  # seconds between heartbeats of the process that runs a sweep
LOOK = 2.0  # seconds between its looks at the sweep
SILENCE = 60.0  # seconds without a heartbeat after which a process on another machine is taken for dead

State = Literal["alive", "dead", "unknown"]


def process_tags() -> dict[str, str]:
    """Returns tags that identify this process. `state_of` reads them."""
    return {tags.HOST: socket.gethostname(), tags.PID: str(os.getpid()), **_machine(), **_start(psutil.Process())}


def state_of(values: Mapping[str, str]) -> State:
    """Returns whether the process with these tags lives; `unknown` if it cannot be seen from here.

    A process of another host or of another container cannot be seen.
    """
    if values.get(tags.HOST) != socket.gethostname():
        return "unknown"
    here = _machine()
    if tags.BOOT in values and values[tags.BOOT] != here.get(tags.BOOT):
        return "dead"  # the machine was started again
    if tags.PID_NAMESPACE in values and values[tags.PID_NAMESPACE] != here.get(tags.PID_NAMESPACE):
        return "unknown"
    try:
        process = psutil.Process(int(values[tags.PID]))
        # A zombie is dead; if nobody collects it, as in many containers, it keeps its number for good.
        alive = process.status() != psutil.STATUS_ZOMBIE and _same_start(_start(process), values)
    except psutil.AccessDenied:  # a process of another user, of which nothing is known
        return "alive"
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return "dead"
    return "alive" if alive else "dead"


def _machine() -> dict[str, str]:
    """Returns what tells this machine, and this container, from every other one since it was started."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot.exists():
        return {}
    return {tags.BOOT: boot.read_text().strip(), tags.PID_NAMESPACE: os.readlink(namespace)}


def _start(process: psutil.Process) -> dict[str, str]:
    """Returns when a process started: by the wall clock, and on Linux in ticks since the machine started.

    The ticks do not change when the clock is set.
    """
    started = {tags.STARTED: str(process.create_time())}
    stat = Path(f"/proc/{process.pid}/stat")
    if stat.exists():
        started[tags.START_TICKS] = stat.read_text().rpartition(")")[2].split()[19]
    return started


def _same_start(now: Mapping[str, str], then: Mapping[str, str]) -> bool:
    if tags.START_TICKS in then and tags.START_TICKS in now:
        return now[tags.START_TICKS] == then[tags.START_TICKS]
    return abs(float(now[tags.STARTED]) - float(then[tags.STARTED])) < 2


def is_unfinished_copy(values: Mapping[str, str]) -> bool:
    """Returns whether the run with these tags is a copy of one that lives in another store, or is not copied whole."""
    return tags.COPIED_FROM in values and tags.COPIED_WHOLE not in values


def check_own(run: StoredRun) -> None:
    """Raises TrackingError if the run is written in another store, from which it was copied."""
    if is_unfinished_copy(run.tags):
        rule = "is a copy of a run that was running, or that was not copied to its end"
        remedy = "resume it in its own store, or copy it again when it ended"
        raise TrackingError(Problem(run.label, rule, remedy=remedy))


def check_not_running(run: StoredRun) -> None:
    """Raises TrackingError if the process of the run is alive, cannot be seen from here, or uses another store."""
    check_own(run)
    if run.status == "RUNNING" and state_of(run.tags) != "dead":
        rule = f"is still running on {_place(run.tags)}"
        raise TrackingError(Problem(run.label, rule, remedy="end it first"))


def end_dead_runs(store: Store) -> None:
    """Sets runs of this host to KILLED that are RUNNING in the store and whose process is gone."""
    with store_errors(store.uri):
        for run in list_runs(store, f"attributes.status = 'RUNNING' and tags.{tags.HOST} = '{socket.gethostname()}'"):
            # Asked again: another process may have claimed a sweep since the runs were listed.
            if not (_lost_its_process(run) and _lost_its_process(run := fetch_run(store, run.id))):
                continue
            owner = newest_owner(run)
            ended = [tags.ENDED_BY, *([owner.released_tag] if owner else [])]
            store.set_tags(run.id, dict.fromkeys(ended, "its process was gone"))  # as another process may do just now
            store.client.set_terminated(run.id, "KILLED")


def _lost_its_process(run: StoredRun) -> bool:
    """Whether a run is RUNNING without a process, as far as can be seen from here."""
    owner = newest_owner(run)
    process = owner.process if owner else run.tags
    is_running = run.status == "RUNNING" and not is_unfinished_copy(run.tags)
    return is_running and {tags.PID, tags.STARTED} <= process.keys() and state_of(process) == "dead"


def _place(process: Mapping[str, str]) -> str:
    return f"{process.get(tags.HOST, 'an unknown host')}, pid {process.get(tags.PID, 'unknown')}"


@dataclass(frozen=True)
class Owner:
    """A process that has claimed a sweep.

    generation: 1 for the process that created the sweep, then 2 and so on.
    process: its tags, as in `process_tags`.
    """

    generation: int
    token: str

    @property
    def process(self) -> dict[str, str]:
        """The tags of the process, as in `process_tags`."""
        return dict(json.loads(self.token))

    @property
    def place(self) -> str:
        """Host and pid, as messages show them."""
        return _place(self.process)

    @property
    def released_tag(self) -> str:
        """The tag that the sweep has once this owner has ended in order."""
        return f"{tags.RELEASED}{self.generation}"


def newest_owner(sweep: StoredRun) -> Owner | None:
    """Returns the last process that has claimed a sweep; None if it was written before owners existed."""
    claims = {int(key.removeprefix(OWNER)): value for key, value in sweep.params.items() if key.startswith(OWNER)}
    return Owner(generation := max(claims), claims[generation]) if claims else None


def has_process(run: StoredRun) -> bool:
    """Whether a process writes the run or sweep, as far as can be seen: on another machine it may be gone."""
    owner = newest_owner(run)
    if owner and owner.released_tag in run.tags:
        return False
    return state_of(owner.process if owner else run.tags) != "dead"


def check_free(store: Store, sweep: StoredRun, on_wait: Callable[[str], None] = lambda place: None) -> None:
    """Raises TrackingError if another process runs the sweep.

    Takes up to a minute if its process cannot be seen from here: it is dead if there is no heartbeat in this time, by
    the clock of this process. on_wait: called with the place of that process before it is watched.
    """
    check_own(sweep)
    owner = newest_owner(sweep)
    if owner is None:
        if sweep.status == "RUNNING" and state_of(sweep.tags) != "dead":
            raise _taken(sweep, _place(sweep.tags))
        return
    if owner.released_tag in sweep.tags or (state := state_of(owner.process)) == "dead":
        return
    if state == "unknown":
        on_wait(owner.place)
        began = time.monotonic()
        while time.monotonic() - began < SILENCE:
            time.sleep(min(1.0, SILENCE / 10))
            now = fetch_run(store, sweep.id)
            if owner.released_tag in now.tags or newest_owner(now) != owner:
                return  # the claim decides
            if now.tags.get(tags.HEARTBEAT) != sweep.tags.get(tags.HEARTBEAT):
                break
        else:
            return
    raise _taken(sweep, owner.place)


def _taken(sweep: StoredRun, place: str) -> TrackingError:
    remedy = f"follow it with: python -m mnist_exp sweep status {sweep.id[:8]}; if that machine is gone or the process"
    return TrackingError(
        Problem(f"the sweep {sweep.label}", f"is run by {place}", remedy=f"{remedy} hangs, add sweep.take_over=true")
    )


class OwnershipLost(TrackingError):
    """Another process runs the sweep now."""


@dataclass
class Ownership:
    """The right of this process to run a sweep, until another process claims the next generation.

    A parameter of a run cannot be changed, so of several processes that log the same one, one wins.
    """

    store: Store
    sweep: StoredRun
    owner: Owner
    _next: Owner | None = field(default=None, init=False)

    @classmethod
    def claim(cls, store: Store, sweep: StoredRun) -> "Ownership":
        """Claims the generation after the newest that `sweep` shows. Raises TrackingError if another process wins."""
        from mlflow.exceptions import MlflowException

        before = newest_owner(sweep)
        generation = before.generation + 1 if before else 1
        owner = Owner(generation, json.dumps({**process_tags(), "id": uuid.uuid4().hex[:16]}))
        with store_errors(store.uri):
            try:
                store.client.log_param(sweep.id, f"{OWNER}{generation}", owner.token)
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
            winner = newest_owner(fetch_run(store, sweep.id))
        if winner != owner:
            assert winner is not None
            raise _taken(sweep, winner.place)
        return cls(store, sweep, owner)

    @property
    def is_lost(self) -> bool:
        """Whether another process has the sweep, as far as this process knows. Asks nobody."""
        return self._next is not None

    def check(self) -> None:
        """Asks the store. Raises OwnershipLost if another process runs the sweep now."""
        self._look()
        self.check_known()

    def check_known(self) -> None:
        """Raises OwnershipLost if this process knows that another one runs the sweep now. Asks nobody."""
        if self._next:
            rule = f"is run by {self._next.place} now, so this process has ended its trials"
            remedy = f"follow it with: python -m mnist_exp sweep status {self.sweep.id[:8]}"
            raise OwnershipLost(Problem(f"the sweep {self.sweep.label}", rule, remedy=remedy))

    def release(self) -> None:
        """Lets any process claim the sweep at once. The last call."""
        self.store.set_tags(self.sweep.id, {self.owner.released_tag: "true"})

    @contextmanager
    def heartbeat(self, on_look: Callable[[StoredRun], None] = lambda sweep: None) -> Iterator[None]:
        """Shows other machines that this process lives, and learns from the store if another one has the sweep.

        on_look: called every LOOK seconds with the sweep as the store has it, in a thread.
        """
        ended = threading.Event()

        def beat() -> None:
            last = time.monotonic()
            while not ended.wait(min(LOOK, BEAT)):
                with suppress(TrackingError):  # the store is away; the next look may reach it
                    sweep = self._look()
                    if self.is_lost:
                        return
                    if time.monotonic() - last >= BEAT:
                        now = {tags.HEARTBEAT: f"{self.owner.generation} {time.time():.0f}"}
                        self.store.set_tags(self.sweep.id, now)
                        last = time.monotonic()
                    on_look(sweep)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _look(self) -> StoredRun:
        sweep = fetch_run(self.store, self.sweep.id)
        if (newest := newest_owner(sweep)) and newest != self.owner:
            self._next = newest
        return sweep
