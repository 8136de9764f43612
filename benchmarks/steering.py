"""Steers a sweep of some 80 trials from other processes, kills the commands at random moments, and counts the trials.

pip install -e ".[cluster]" && python benchmarks/steering.py --executor inline
python benchmarks/steering.py --executor local
python benchmarks/steering.py --executor dask                          with MLflow's server

The sweep is paused, widened, fed with a trial, gets failed trials run again, more of them, is stopped and resumed. Each
command is also killed at random moments, `--kills` times. Printed is how long an answer takes, how long until it is
effective, and how many trials MLflow's client finds missing or doubled.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mlflow import MlflowClient
from services import Dask, Mlflow

NET = """
import time
from pathlib import Path
import keras

def net(image_shape, classes, *, width, broken):
    if width == 13 and Path(broken).exists():
        raise ValueError("thirteen is broken")
    inputs = keras.Input(image_shape)
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Dense(width, "relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(x))

class Slow(keras.callbacks.Callback):
    def __init__(self, marker):
        super().__init__()
        self.marker = Path(marker)

    def on_epoch_end(self, epoch, logs=None):
        if self.marker.exists():
            time.sleep(0.2)
"""
TRIALS, MORE = 60, 20
EPOCHS = 60  # two seconds of a trial; 14 while commands are killed, so that trials are left when the last one was
COMMANDS = {
    "more": ["1"],
    "add": ["optimizer.learning_rate=0.00{}"],
    "retry": ["0"],
    "widen": ["optimizer.learning_rate=tag(log,interval(1e-4,2e-1))"],
    "pause": [],
    "continue": [],
    "stop": [],
}
SECONDS = 120  # until something that was asked for must have happened


class Drill:
    """A sweep, and the commands that steer it."""

    def __init__(
        self, folder: Path, executor: list[str], words: list[str], uri: str | None, environment: dict[str, str]
    ) -> None:
        self.folder, self.executor, self.words, self.chance = folder, executor, words, random.Random(0)
        self.environment = {**os.environ, **environment, **({"MLFLOW_TRACKING_URI": uri} if uri else {})}
        self.client = MlflowClient(uri or f"sqlite:///{folder}/mlruns/mlflow.db")
        self.answers: dict[str, list[float]] = defaultdict(list)
        self.effects: dict[str, float] = {}
        self.killed: Counter[str] = Counter()

    def start(self) -> subprocess.Popen:
        return self._start(*self.executor, *self.words)

    def resume(self) -> subprocess.Popen:
        return self._start(*self.executor, "sweep.resume=latest")

    def _start(self, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "mnist_exp", "-m", *words]
        with (self.folder / "sweep.log").open("a") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, env=self.environment)

    def command(self, kind: str, *more: str) -> dict:
        """Runs `sweep KIND` and returns its answer."""
        begun = time.monotonic()
        words = [sys.executable, "-m", "mnist_exp", "sweep", kind, "study", *more, "--json"]
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False, env=self.environment)
        if not done.stdout:
            return {"accepted": False, "text": done.stderr}
        answer = json.loads(done.stdout)["answer"] or {"accepted": None, "text": "no answer"}
        self.answers[kind].append(time.monotonic() - begun)
        return answer

    def kill(self, kind: str, *more: str) -> None:
        """Starts `sweep KIND` and kills it at a random moment of its life."""
        words = [sys.executable, "-m", "mnist_exp", "sweep", kind, "study", *more]
        devnull = subprocess.DEVNULL
        process = subprocess.Popen(words, cwd=self.folder, stdout=devnull, stderr=devnull, env=self.environment)
        try:
            process.wait(self.chance.uniform(0.5, 6))
        except subprocess.TimeoutExpired:
            self.killed[kind] += 1
        process.kill()
        process.wait()

    def runs(self, kind: str = "trial") -> list:
        experiments = [one.experiment_id for one in self.client.search_experiments()]
        return (
            list(self.client.search_runs(experiments, f"tags.kind = '{kind}'", max_results=5000)) if experiments else []
        )

    def counted(self) -> dict[int, list]:
        """The runs of each trial that count."""
        found = defaultdict(list)
        for run in self.runs():
            is_over = run.info.status == "FINISHED" or (run.info.status == "FAILED" and "error" in run.data.tags)
            if "superseded" not in run.data.tags and is_over:
                found[int(run.data.tags["trial"])].append(run)
        return found

    def is_stopping(self) -> bool:
        """Whether the process that runs the sweep has accepted to stop."""
        (sweep,) = self.runs("sweep")
        generation = sum(key.startswith("owner/") for key in sweep.data.params)
        for key, text in sweep.data.tags.items():
            answer = json.loads(text) if key.startswith("answer/") else {}
            request = sweep.data.params.get(f"request/{key.removeprefix('answer/')}", "{}")
            if answer.get("accepted") and answer["generation"] == generation and json.loads(request)["kind"] == "stop":
                return True
        return False

    def wait(self, condition: Callable[[], object], what: str, seconds: float = SECONDS) -> float:
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > seconds:
                raise SystemExit(f"{what} did not come about\n{(self.folder / 'sweep.log').read_text()[-3000:]}")
            time.sleep(0.1)
        return time.monotonic() - begun

    def effect(self, kind: str, *more: str, until: Callable[[], object]) -> dict:
        """Asks for something, and measures how long it takes to happen."""
        begun = time.monotonic()
        answer = self.command(kind, *more)
        if not answer["accepted"]:
            log = (self.folder / "sweep.log").read_text()[-3000:]
            raise SystemExit(f"{kind} was refused: {answer}\n{log}")
        self.wait(until, kind)
        self.effects[kind] = time.monotonic() - begun
        return answer


def steer(drill: Drill, kills: int) -> None:
    """The whole drill."""
    broken = drill.folder / "broken"
    broken.touch()
    process = drill.start()
    drill.wait(lambda: len(drill.counted()) >= 6, "six trials")
    drill.effect("pause", until=lambda: not [run for run in drill.runs() if run.info.status == "RUNNING"])
    slow = drill.folder / "slow"
    slow.touch()
    process = kill_commands(drill, process, kills)
    slow.unlink()
    drill.wait(lambda: not [run for run in drill.runs() if run.info.status == "RUNNING"], "a pause")
    before = len(drill.runs())
    time.sleep(3)
    if len(drill.runs()) != before:
        raise SystemExit("a paused sweep has started a trial")
    drill.effect("more", str(MORE), until=lambda: True)
    drill.effect("widen", "optimizer.learning_rate=tag(log,interval(1e-2,1e-1))", until=lambda: True)
    drill.effect("continue", until=lambda: len(drill.runs()) > before)
    drill.effect("add", "optimizer.learning_rate=0.0375", until=lambda: _has_rate(drill, 0.0375))
    broken.unlink()
    failed = [number for number, runs in drill.counted().items() if runs[0].info.status == "FAILED"][:2]
    if failed:
        numbers = list(map(str, failed))
        drill.effect("retry", *numbers, until=lambda: all(_is_finished(drill, number) for number in failed))
    drill.effect("stop", until=lambda: process.poll() is not None)
    process = drill.resume()
    while process.poll() is None:
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit((drill.folder / "sweep.log").read_text()[-3000:])


def kill_commands(drill: Drill, process: subprocess.Popen, kills: int) -> subprocess.Popen:
    """Kills each command at random moments while the sweep is paused. Returns the process that runs the sweep then."""
    for kind, words in COMMANDS.items():
        for number in range(kills):
            drill.kill(kind, *(word.format(100 + number) for word in words))
            if kind == "stop":
                time.sleep(5)  # a request that was written is answered meanwhile
                if drill.is_stopping():
                    process.wait()
                    process = drill.resume()
                    drill.wait(lambda: drill.runs("sweep")[0].info.status == "RUNNING", "a resume")
            if kind in ("stop", "continue"):
                drill.command("pause")  # refused if it still is
    return process


def _has_rate(drill: Drill, rate: float) -> bool:
    return any(json.loads(run.data.tags["values"])["optimizer.learning_rate"] == rate for run in drill.runs())


def _is_finished(drill: Drill, number: int) -> bool:
    return any(run.info.status == "FINISHED" for run in drill.counted().get(number, []))


def report(drill: Drill) -> int:
    """Prints the times and counts. Returns the exit status."""
    for kind, times in sorted(drill.answers.items()):
        effect = f"; effective after {drill.effects[kind]:.1f} s" if kind in drill.effects else ""
        shown = f"answered within {min(times):.1f} to {max(times):.1f} s ({len(times)} times)"
        print(f"{kind:9} {shown}{effect}; killed {drill.killed[kind]} times")
    (sweep,) = drill.runs("sweep")
    answered = [key for key in sweep.data.tags if key.startswith("answer/")]
    waits = list(_waits(sweep))
    print(
        f"in the store an answer follows its request within {max(waits):.1f} s, median {statistics.median(waits):.1f} s"
    )
    asked = [key for key in sweep.data.params if key.startswith("request/")]
    limit = _limit(sweep)
    counted = drill.counted()
    lost = [number for number in range(limit) if number not in counted]
    doubled = [number for number, runs in counted.items() if len(runs) > 1]
    running = [run for run in drill.runs() if run.info.status == "RUNNING"]
    print(f"{len(asked)} requests, {len(answered)} answered; {limit} trials planned in the end")
    print(f"{len(counted)} trials counted, {len(lost)} lost, {len(doubled)} doubled, {len(running)} left RUNNING")
    if lost:
        print((drill.folder / "sweep.log").read_text()[-2500:])
    return int(bool(lost or doubled or running or len(asked) != len(answered) or len(counted) != limit))


def _waits(sweep) -> Iterator[float]:
    """The seconds between each request and its answer, by the clock of this machine."""
    for key, text in sweep.data.tags.items():
        if key.startswith("answer/"):
            request = json.loads(sweep.data.params[f"request/{key.removeprefix('answer/')}"])
            yield json.loads(text)["when"] - request["when"]


def _limit(sweep) -> int:
    """The number of trials in the end: an answer raises it, or lowers it if what was added does not fit any more."""
    answers = {int(k.removeprefix("answer/")): v for k, v in sweep.data.tags.items() if k.startswith("answer/")}
    settings = [json.loads(answers[number])["change"]["settings"] for number in sorted(answers)]
    return [TRIALS, *(one["max_trials"] for one in settings if "max_trials" in one)][-1]


def main(executor: str, kills: int) -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "my_net.py").write_text(NET)
        where, uri = [f"executor={executor}"], None
        environment = {"XDG_CACHE_HOME": str(folder / "cache")}
        if executor == "local":
            where += ["executor.workers=2"]
        if executor == "dask":
            (folder / "server").mkdir()
            (folder / "dask").mkdir()
            database = f"sqlite:///{folder}/server/mlflow.db"
            uri = stack.enter_context(Mlflow(folder / "server", database)).uri
            (folder / "dask" / "my_net.py").write_text(NET)  # where the workers run
            dask = stack.enter_context(Dask(folder / "dask"))
            for _ in range(2):
                dask.add()
            where += [f"executor.address={dask.address}"]
        words = [
            "sweep.name=study", "model=custom", "model._target_=my_net.net", f"+model.broken={folder / 'broken'}",
            "+model.width=8,13,16", "optimizer.learning_rate=tag(log,interval(1e-4,1e-2))",
            f"training.callbacks=[{{_target_:my_net.Slow,marker:{folder / 'slow'}}}]",
            f"training.epochs={EPOCHS}", f"sweep.max_trials={TRIALS}", "sweep.max_consecutive_failures=99",
            "sweep.sampler=random", "sweep.pruner=off",
        ]  # fmt: skip
        drill = Drill(folder, where, words, uri, environment)
        begun = time.monotonic()
        steer(drill, kills)
        print(f"executor={executor}, {'MLflow server' if uri else 'SQLite'}: {time.monotonic() - begun:.0f} s")
        return report(drill)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=["inline", "local", "dask"], default="inline")
    parser.add_argument("--kills", type=int, default=10)
    chosen = parser.parse_args()
    sys.exit(main(chosen.executor, chosen.kills))
