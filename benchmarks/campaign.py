"""Sweeps that are killed, stopped, doubled and disconnected at random moments, and what their store holds afterwards.

python benchmarks/campaign.py --minutes 10                          one trial after another, SQLite
python benchmarks/campaign.py --minutes 10 --executor local         two worker processes and their fork server
python benchmarks/campaign.py --minutes 10 --executor dask          a scheduler and two workers on 127.0.0.1
python benchmarks/campaign.py --minutes 10 --server                 through MLflow's server, which is killed, too
python benchmarks/campaign.py --pruner asha --only "parent SIGKILL" sweeps whose trials end at rungs
python benchmarks/campaign.py --double-starts 30                    two processes resume one sweep at the same moment
python benchmarks/campaign.py --seed 7 --round 12                   one round again

A round is one sweep on the digits in a new store. It is disturbed once, then resumed until it is FINISHED. A process of
its own then reads the store with MLflow's client and checks the rules of `check_store`. Every violation is printed with
the seed and the round, and its folder is kept. The last lines are a table: one row for each kind of disturbance.
Linux only. As root it also fills a disk, which is a tmpfs of 300 MB.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import processes
import psutil

NET = """
import keras

def net(image_shape, classes, *, width):
    if width == 13:
        raise ValueError("thirteen brings bad luck")
    inputs = keras.Input(image_shape)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Dense(width, "relu")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(x))
"""
OWN = ["dataset=digits", "model=custom", "model._target_=my_net.net", "training=smoke", "sweep.name=campaign"]
TRIES, PATIENCE = 6, 240  # times that a sweep is resumed; seconds until a process that does not end is called hung
OWNED = "is run by"  # of the sentence that names the owner of a sweep
UNDELIVERED = "the store has not taken everything"  # of the warning after which the exit status is 1


@dataclass
class Round:
    """One sweep and the processes that run it. `parents` are leaders of a session each, which their workers share."""

    number: int
    seed: int
    executor: str
    server: bool
    pruner: str | None
    chance: random.Random
    folder: Path
    services: dict = field(default_factory=dict)
    parents: list[processes.Process] = field(default_factory=list)
    sessions: dict[int, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    trials: int = 0
    trained: int = 0
    resumes: int = 0
    disturbed: bool = False
    doubled: bool = False  # two processes have resumed the sweep at the same moment

    @property
    def mlruns(self) -> Path:
        return self.folder / "mlruns"

    @property
    def database(self) -> Path:
        return self.folder / "server" / "mlflow.db" if self.server else self.mlruns / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        return self.database.parent / "artifacts"

    @property
    def homes(self) -> list[Path]:
        """The folders in which processes of the round were started: Dask's workers have one of their own."""
        return [self.folder, self.services["dask"].folder] if self.executor == "dask" else [self.folder]

    @property
    def uri(self) -> str:
        return str(self.services["mlflow"].uri) if self.server else f"sqlite:///{self.database}"

    def start(self, *arguments: str) -> processes.Process:
        words = ["-m", *arguments, f"executor={self.executor}"]
        words += [f"tracking.uri={self.uri}"] if self.server else []
        if self.executor == "dask":
            words += [f"executor.address={self.services['dask'].address}"]
        elif self.executor == "local":
            words += ["executor.workers=2"]
        self.parents.append(processes.start(*words, cwd=self.folder, prepare=lead_session))
        return self.parents[-1]

    def resume(self, *arguments: str) -> processes.Process:
        self.resumes += 1
        return self.start("sweep.resume=campaign", *arguments)

    def members(self) -> list[psutil.Process]:
        """The living processes of this round: parents, fork servers and workers."""
        leaders, found = {parent.pid for parent in self.parents}, []
        for pid in psutil.pids():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if (session := os.getsid(pid)) in leaders and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    self.sessions[pid] = session
                    found.append(psutil.Process(pid))
        return found

    def query(self, statement: str) -> list[tuple]:
        """Reads the database of the store. Nothing if it does not exist yet or is locked."""
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            return database.execute(statement).fetchall()
        return []

    def status(self) -> str | None:
        """The status of the sweep; None before it exists."""
        of_sweeps = "SELECT status FROM runs JOIN tags USING (run_uuid) WHERE key = 'kind' AND value = 'sweep'"
        return next((status for (status,) in self.query(of_sweeps)), None)

    def epochs(self) -> int:
        return int((self.query("SELECT count(*) FROM metrics WHERE key = 'train/loss'") or [(0,)])[0][0])

    def wait(self, parent: processes.Process, seconds: float = PATIENCE, what: Callable[[], object] = bool) -> None:
        """Waits until this is so or the process has ended."""
        until = time.monotonic() + seconds
        while parent.poll() is None and not what() and time.monotonic() < until:
            self.members()
            time.sleep(0.2)

    def end(self, parent: processes.Process) -> int | None:
        """The exit status of a process that should end now."""
        self.wait(parent)
        if parent.poll() is None:
            self.violations.append(f"pid {parent.pid} did not end within {PATIENCE} s: {parent.stdout[-300:]}")
            parent.send_signal(signal.SIGCONT)
            parent.kill()
            parent.wait(30)
        return parent.returncode


def lead_session() -> None:
    """Runs in a process that stands for `python -m mnist_exp`: its workers belong to its session."""
    os.setsid()
    sys.modules["__main__"] = types.ModuleType("__main__")  # else its workers would import this file


# Disturbances: each gets the round and the process that runs its sweep.


def send(*numbers: signal.Signals, to: str = "parent") -> Callable[[Round, processes.Process], None]:
    def act(game: Round, parent: processes.Process) -> None:
        found = pids(game, parent, to)
        for pid, number in product(game.chance.sample(found, min(1, len(found))), numbers):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            time.sleep(game.chance.uniform(1, 12) if number == signal.SIGSTOP else game.chance.uniform(0.1, 1))

    return act


def pids(game: Round, parent: processes.Process, kind: str) -> list[int]:
    """The processes of this kind. What a fork server forks has its command line, and is its child."""
    if kind == "parent":
        return [parent.pid]
    if game.executor == "dask":
        tree = [psutil.Process(one.pid) for one in game.services["workers"] if one.poll() is None]
        return [child.pid for one in tree for child in one.children() if "spawn_main" in " ".join(child.cmdline())]
    others = [one for one in game.members() if one.pid != parent.pid]
    with suppress(psutil.NoSuchProcess):
        servers = [one.pid for one in others if "forkserver" in " ".join(one.cmdline()) and one.ppid() == parent.pid]
        return servers if kind == "server" else [one.pid for one in others if one.ppid() in servers]
    return []


def second_start(game: Round, parent: processes.Process) -> None:
    """While the sweep runs, another process resumes it and is refused."""
    started = parent.poll() is None and game.status() == "RUNNING"
    second = game.resume()
    status = game.end(second)
    if started and parent.poll() is None and (status, OWNED in second.stderr) != (1, True):
        game.violations.append(f"a second start ended with {status}: {(second.stdout + second.stderr)[-400:]}")


def double_start(game: Round, parent: processes.Process) -> None:
    """The process is killed, and two resume its sweep at the same moment: one of them does, the other is refused."""
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(30)
    if game.status() in (None, "FINISHED"):
        return
    game.doubled = True
    both = [game.resume(), game.resume()]
    ends = sorted((str(game.end(one)), OWNED in one.stderr) for one in both)
    if ends != [("0", False), ("1", True)]:
        game.violations.append(f"a double start ended as {ends}: {[(one.stdout + one.stderr)[-300:] for one in both]}")


def take_over(game: Round, parent: processes.Process) -> None:
    """The process is stopped, another takes its sweep, and the first one goes on and has to notice."""
    if parent.poll() is not None or game.status() != "RUNNING":
        return
    parent.send_signal(signal.SIGSTOP)
    second = game.resume("sweep.take_over=true")
    game.wait(second, game.chance.uniform(2, 25))
    parent.send_signal(signal.SIGCONT)
    status = game.end(parent)
    if (status, OWNED in parent.stderr) != (1, True):
        game.violations.append(f"the owner before ended with {status}: {(parent.stdout + parent.stderr)[-400:]}")
    game.end(second)


def disconnect(game: Round, parent: processes.Process) -> None:
    game.services["mlflow"].stop()
    time.sleep(game.chance.uniform(0, 15))
    game.services["mlflow"].begin()


def restart_scheduler(game: Round, parent: processes.Process) -> None:
    game.services["dask"].restart_scheduler()
    add_workers(game)


def full_disk(game: Round, parent: processes.Process) -> None:
    filler = game.mlruns / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(2**16)):
            pass
    time.sleep(game.chance.uniform(2, 12))
    filler.unlink()


def refuse_writes(game: Round, parent: processes.Process) -> None:
    """Every write to a file fails, in all processes of the round."""
    for limit in (4096, resource.RLIM_INFINITY):
        for one in game.members():
            with suppress(ProcessLookupError):
                resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        time.sleep(game.chance.uniform(1, 6))


def refuse_artifacts(game: Round, parent: processes.Process) -> None:
    """A file lies where the folder of the artifacts should be."""
    if not game.artifacts.is_dir():
        return
    away = game.artifacts.rename(game.artifacts.with_name("away"))
    game.artifacts.touch()
    time.sleep(game.chance.uniform(1, 6))
    game.artifacts.unlink()
    away.rename(game.artifacts)


def lock_database(game: Round, parent: processes.Process) -> None:
    with suppress(sqlite3.Error), closing(sqlite3.connect(game.database, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(game.chance.uniform(2, 20))


STOP = (signal.SIGSTOP, signal.SIGCONT)
DISTURBANCES: dict[str, Callable[[Round, processes.Process], None]] = {
    "parent SIGTERM": send(signal.SIGTERM), "parent SIGKILL": send(signal.SIGKILL),
    "parent SIGHUP": send(signal.SIGHUP), "parent SIGINT": send(signal.SIGINT),
    "parent SIGINT twice": send(signal.SIGINT, signal.SIGINT),
    "parent SIGSTOP": send(*STOP), "second start": second_start, "double start": double_start, "take over": take_over,
    "full disk": full_disk, "refused writes": refuse_writes, "refused artifacts": refuse_artifacts,
    "locked database": lock_database, "server away": disconnect, "worker SIGKILL": send(signal.SIGKILL, to="worker"),
    "worker SIGTERM": send(signal.SIGTERM, to="worker"), "worker SIGSTOP": send(*STOP, to="worker"),
    "fork server SIGKILL": send(signal.SIGKILL, to="server"), "fork server SIGTERM": send(signal.SIGTERM, to="server"),
    "fork server SIGSTOP": send(*STOP, to="server"), "scheduler SIGKILL": restart_scheduler,
}  # fmt: skip


def possible(executor: str, server: bool) -> list[str]:
    """The disturbances that there can be."""
    left_out = {"server away": not server, "full disk": os.geteuid() != 0, "scheduler SIGKILL": executor != "dask"}
    names = [name for name in DISTURBANCES if not left_out.get(name)]
    names = [name for name in names if executor != "inline" or not name.startswith("worker")]
    return [name for name in names if executor == "local" or not name.startswith("fork server")]


def search_space(chance: random.Random, pruner: str | None) -> list[str]:
    """The keys of a sweep of 4 to 7 trials, some of which fail; with `asha` of 8 trials, most of which it ends."""
    widths = chance.sample([4, 8, 12, 13, 16, 20, 24, 32], chance.choice([4, 5, 6]))
    grid = "+model.width=" + ",".join(map(str, widths))
    sampled = ["+model.width=range(4,40)", "sweep.sampler=random", f"sweep.max_trials={chance.choice([4, 5, 6])}"]
    hyperband = ["+model.width=8,12,16,20,24,32", "sweep.sampler=random", "sweep.pruner=hyperband"]
    asha = ["+model.width=range(4,40)", "sweep.pruner=asha", "sweep.factor=2", "sweep.max_trials=8"]
    choices = [[grid], [*sampled, "sweep.pruner=off"], hyperband, asha]
    chosen = asha if pruner == "asha" else chance.choice(choices)
    return [*OWN, *chosen, f"training.epochs={chance.choice([3, 4])}"]


def play(game: Round, name: str) -> None:
    """One round."""
    arguments = search_space(game.chance, game.pruner)
    parent = game.start(*arguments)
    epochs, pause, limit = game.chance.randint(0, 16), game.chance.uniform(0, 2), game.chance.choice([PATIENCE, 8])
    game.wait(parent, limit * game.chance.random() if limit < PATIENCE else limit, lambda: game.epochs() >= epochs)
    time.sleep(pause)
    game.disturbed = parent.poll() is None and game.status() != "FINISHED"
    if game.disturbed:
        DISTURBANCES[name](game, parent)
    for _ in range(TRIES):
        game.end(game.parents[-1])
        game.end(parent)
        if game.status() == "FINISHED":
            break
        game.resume() if game.status() else game.start(*arguments)
    else:
        game.violations.append(f"{game.status()} after {TRIES} resumes: {game.parents[-1].stderr[-600:]}")
    statuses = [parent.returncode or 0 for parent in game.parents]  # one may have been killed after its last write
    if min(statuses) > 0 and not any(UNDELIVERED in parent.stdout for parent in game.parents):
        game.violations.append(f"the sweep is {game.status()}, but no process said so: {statuses}")
    for home in game.homes:
        if (home / "mlruns" / "running").exists():
            run_command(game, "store", "deliver", "--uri", game.uri, cwd=home)
    check(game)


def run_command(game: Round, *words: str, cwd: Path | None = None) -> None:
    done = processes.run(*words, cwd=cwd or game.folder)
    if done.returncode:
        game.violations.append(
            f"{' '.join(words[:2])} ended with {done.returncode}: {(done.stdout + done.stderr)[-400:]}"
        )


def check(game: Round) -> None:
    """Checks processes, files and the store of a round that has ended."""
    until = time.monotonic() + 20
    while (left := game.members()) and time.monotonic() < until:
        time.sleep(0.5)
    game.violations += [f"orphan: pid {one.pid} {' '.join(one.cmdline())[-80:]}" for one in left]
    game.violations += [f"left over: {path}" for home in game.homes for path in home.glob("mlruns/running/*")]
    for parent in game.parents:
        if "Traceback (most recent call last)" in parent.stderr:
            game.violations.append(f"a traceback, exit status {parent.returncode}: {parent.stderr[-700:]}")
    with closing(sqlite3.connect(game.database)) as database:
        if (answer := database.execute("PRAGMA integrity_check").fetchone()) != ("ok",):
            game.violations.append(f"integrity_check: {answer}")
    if not game.server:
        run_command(game, "store", "check")
    answer = game.folder / "check.json"
    reader = processes.call(check_store, game.uri, game.sessions, str(answer), cwd=game.folder)
    if reader.wait():
        game.violations.append(f"the store cannot be checked: {reader.stderr[-600:]}")
        return
    found = json.loads(answer.read_text())
    game.trials, game.trained = found["trials"], found["trained"]
    game.violations += found["violations"]


def check_store(uri: str, sessions: dict[int, int], answer: str) -> None:
    """Checks what the store holds, with MLflow's client only. sessions: the leader of each process of the round."""
    from mlflow import MlflowClient

    client, wrong = MlflowClient(uri), []
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = list(client.search_runs(experiments, max_results=1000))
    of_kind = defaultdict(list)
    for run in runs:
        of_kind[run.data.tags.get("kind")].append(run)
        if run.info.status == "RUNNING":
            wrong.append(f"{run.info.run_name} {run.info.run_id[:8]} is still RUNNING: {run.data.tags.get('kind')}")
    histories = {
        run.info.run_id: {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        for run in runs
    }
    if len(of_kind["sweep"]) != 1:
        wrong.append(f"{len(of_kind['sweep'])} sweeps")
    for sweep in of_kind["sweep"][:1]:
        trials = [run for run in of_kind["trial"] if run.data.tags["sweep"] == sweep.info.run_id]
        counted = [run for run in trials if "superseded" not in run.data.tags]
        wrong += check_trials(sweep, counted, histories)
        wrong += check_parent(sweep, counted, histories[sweep.info.run_id])
        wrong += check_owners(sweep, counted, sessions)
        wrong += check_rungs(counted, histories[sweep.info.run_id])
    for run in runs:
        wrong += check_points(run, histories[run.info.run_id])
    trained = sum("train/loss" in run.data.metrics for run in of_kind["trial"])
    Path(answer).write_text(json.dumps({"violations": wrong, "trials": len(of_kind["trial"]), "trained": trained}))


def check_points(run, histories: dict) -> Iterator[str]:
    """No metric has a step twice, also not with the same value."""
    for key, points in histories.items():
        values = defaultdict(list)
        for point in points:
            values[point.step].append(point.value)
        for step, found in values.items():
            if len(found) > 1:
                how = "again" if len(set(found)) == 1 else "with other values"
                yield f"{run.info.run_name} {run.info.run_id[:8]} has {key} at step {step} {how}: {found}"


def check_trials(sweep, counted: list, histories: dict) -> Iterator[str]:
    """Each trial has one run that counts, and no test metric. The winner is the best of the largest budget."""
    numbers = Counter(int(run.data.tags["trial"]) for run in counted)
    if numbers != Counter(range(len(numbers))):
        yield f"trials and runs that count: {sorted(numbers.items())}"
    for run in counted:
        steps = sorted(point.step for point in histories[run.info.run_id].get("train/loss", ()))
        if run.info.status not in ("FINISHED", "FAILED"):
            yield f"trial {run.data.tags['trial']} {run.info.run_id[:8]} counts, but is {run.info.status}"
        if run.info.status == "FINISHED" and (not steps or "score" not in run.data.metrics):
            yield f"trial {run.data.tags['trial']} is FINISHED without an epoch or a score"
        if steps and steps != list(range(steps[0], steps[-1] + 1)):
            yield f"trial {run.data.tags['trial']} has the epochs {steps}"
        if any(key.startswith("test/") for key in run.data.metrics):
            yield f"trial {run.data.tags['trial']} has test metrics"
    complete = [run for run in counted if run.info.status == "FINISHED" and "pruned" not in run.data.tags]
    budgets = {run.info.run_id: json.loads(run.data.tags.get("rung", "{}")).get("epochs", 0) for run in complete}
    most = [run for run in complete if budgets[run.info.run_id] == max(budgets.values())]
    best = min(most, key=lambda run: (-run.data.metrics.get("score", 0), int(run.data.tags["trial"])), default=None)
    if best and best.info.run_id != sweep.data.tags.get("best_run"):
        yield f"the winner is {sweep.data.tags.get('best_trial')}, not trial {best.data.tags['trial']}"


def check_parent(sweep, counted: list, histories: dict) -> Iterator[str]:
    """Steps increase, the last counts are those of the trials, and every opening of the test set is counted."""
    for key, points in histories.items():
        in_order = [point.step for point in sorted(points, key=lambda point: point.timestamp)]
        if not key.startswith(("test/", "rung/")) and in_order != sorted(set(in_order)):
            yield f"the steps of {key} do not increase: {in_order}"
    newest = {key: max(points, key=lambda point: point.step).value for key, points in histories.items()}
    counts = {key: value for key, value in newest.items() if key.startswith("trials/")}
    if sum(counts.values()) != len(counted):
        yield f"the sweep counts {counts}, but has {len(counted)} trials"
    opened = {
        key.removeprefix("test_set/"): run for key, run in sweep.data.params.items() if key.startswith("test_set/")
    }
    scored = [str(point.step) for point in histories.get("test/accuracy", ())]
    if sorted(opened) != [str(n) for n in range(1, len(opened) + 1)] or len(set(opened.values())) != len(opened):
        yield f"openings of the test set: {opened}"
    if sorted(set(scored)) != sorted(opened):
        yield f"test metrics at the steps {scored}, openings {sorted(opened)}"


def check_rungs(counted: list, histories: dict) -> Iterator[str]:
    """Each trial that counts did at each rung what is recorded there."""
    decisions = {
        (point.step, int(key.split("/")[1])): bool(point.value)
        for key, points in histories.items()
        if key.startswith("rung/") and key.endswith("/goes_on")
        for point in points
    }
    for run in counted:
        number, epochs = int(run.data.tags["trial"]), int(run.data.tags.get("epochs", 0))
        if run.info.status != "FINISHED":
            continue
        for (trial, epoch), goes_on in decisions.items():
            if trial == number and epochs >= epoch and goes_on == (epochs == epoch):
                yield f"trial {number} has {epochs} epochs, but at epoch {epoch} it was told {goes_on}"
        if "pruned" in run.data.tags and decisions.get((number, epochs)) is not False:
            yield f"trial {number} ended at epoch {epochs}, where no rung has ended it"


def check_owners(sweep, counted: list, sessions: dict[int, int]) -> Iterator[str]:
    """Owners have no gap, and a trial that began under one of them does not count if a later owner had begun trials."""
    claims = {int(key.removeprefix("owner/")): v for key, v in sweep.data.params.items() if key.startswith("owner/")}
    if sorted(claims) != list(range(1, len(claims) + 1)):
        yield f"owners {sorted(claims)}"
    generation = {int(json.loads(token)["pid"]): number for number, token in claims.items()}
    by_start = sorted(counted, key=lambda run: run.info.start_time)
    pids = [int(run.data.tags["pid"]) for run in by_start]
    order = [generation[leader] for pid in pids if (leader := sessions.get(pid, pid)) in generation]
    if order != sorted(order):
        yield f"the trials that count began under the owners {order}"


@contextmanager
def round_of(number: int, chosen: argparse.Namespace, name: str, services: dict) -> Iterator[Round]:
    """A round with a new folder and store. The folder is kept if there are violations."""
    from services import Mlflow

    folder = Path(tempfile.mkdtemp(prefix=f"campaign-{chosen.seed}-{number}-"))
    chance = random.Random(f"{chosen.seed}/{number}")
    game = Round(number, chosen.seed, chosen.executor, chosen.server, chosen.pruner, chance, folder, services)
    (folder / "my_net.py").write_text(NET)
    game.mlruns.mkdir()
    with ExitStack() as stack:
        if name == "full disk":
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(game.mlruns)], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", str(game.mlruns)], check=True)
        if game.server:
            game.artifacts.mkdir(parents=True)
            services["mlflow"] = stack.enter_context(Mlflow(game.database.parent, f"sqlite:///{game.database}"))
        try:
            yield game
        finally:
            for one in game.members():
                with suppress(psutil.NoSuchProcess):
                    one.kill()
    if not game.violations:
        shutil.rmtree(folder, ignore_errors=True)


def add_workers(game_or_services: Round | dict) -> None:
    """Two Dask workers; those before end with their scheduler."""
    services = game_or_services.services if isinstance(game_or_services, Round) else game_or_services
    services["workers"] = [services["dask"].add() for _ in range(2)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--executor", choices=["inline", "local", "dask"], default="inline")
    parser.add_argument("--server", action="store_true", help="through MLflow's server")
    parser.add_argument("--pruner", choices=["asha"], help="only sweeps with this pruner")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, help="only this round")
    parser.add_argument("--only", help="only this kind of disturbance")
    parser.add_argument("--double-starts", type=int, metavar="N", help="double starts only, until there were N")
    parser.add_argument("--json", type=Path, help="also write the table here")
    chosen = parser.parse_args()
    names = ["double start"] if chosen.double_starts else possible(chosen.executor, chosen.server)
    names = [chosen.only] if chosen.only else names
    rows: dict[str, Counter] = defaultdict(Counter)
    until, number, doubled = time.monotonic() + 60 * chosen.minutes, chosen.round or 0, 0
    with ExitStack() as stack:
        processes.Process.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        services: dict = {}
        if chosen.executor == "dask":
            from services import Dask

            services["dask"] = stack.enter_context(Dask(processes.Process.folder))
            (processes.Process.folder / "my_net.py").write_text(NET)
            add_workers(services)
        while doubled < chosen.double_starts if chosen.double_starts else time.monotonic() < until:
            # Every kind once, in another order each time.
            name = random.Random(f"{chosen.seed}/{number // len(names)}").sample(names, len(names))[number % len(names)]
            with round_of(number, chosen, name, services) as game:
                began = time.monotonic()
                play(game, name)
            row = rows[name]
            row.update(
                rounds=1, disturbed=int(game.disturbed), trials=game.trials, trained=game.trained, resumes=game.resumes
            )
            row["violations"] += len(game.violations)
            seconds = time.monotonic() - began
            print(f"round {number} {name}: {game.trials} trials, {game.resumes} resumes, {seconds:.0f} s", flush=True)
            for text in game.violations:
                print(f"VIOLATION --seed {chosen.seed} --round {number} {name}: {text} ({game.folder})", flush=True)
            number, doubled = number + 1, doubled + game.doubled
            if chosen.round is not None:
                break
    print(table(rows))
    if chosen.json:
        chosen.json.write_text(json.dumps({"seed": chosen.seed, "rows": rows}, indent=2))
    return int(any(row["violations"] for row in rows.values()))


def table(rows: dict[str, Counter]) -> str:
    """The table in Markdown, with a sum at the end."""
    keys = ["rounds", "disturbed", "trials", "trained", "resumes", "violations"]
    total: Counter = sum(rows.values(), Counter())
    lines = [f"| disturbance | {' | '.join(keys)} |", f"|---{'|---:' * len(keys)}|"]
    for name, row in [*sorted(rows.items()), ("all", total)]:
        lines.append(f"| {name} | {' | '.join(str(row[key]) for key in keys)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
