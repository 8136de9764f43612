"""A sweep on a team's servers while they fail: PostgreSQL, MLflow's server, a Dask scheduler and three workers.

pip install -e ".[cluster]" psycopg[binary] && python benchmarks/team.py

30 trials train on the digits. Meanwhile workers are killed five times, the scheduler once, and MLflow's server is away
for 30 seconds. Counted at the end: finished trials, and every epoch's metrics of each.
"""

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
from mlflow import MlflowClient
from services import Dask, Mlflow, Postgres, kill

TRIALS, EPOCHS, WORKERS = 30, 100, 3
KILLS = (20, 35, 50, 65, 80)  # seconds after the first trial ended
SCHEDULER, AWAY = 95, (45, 75)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user
        with (
            Postgres(made(folder / "p")) as postgres,
            Mlflow(made(folder / "m"), postgres.uri) as server,
            Dask(made(folder / "d")) as dask,
        ):
            return survived(made(folder / "work"), server, dask)


def made(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def survived(folder: Path, server: Mlflow, dask: Dask) -> int:
    workers = [dask.add() for _ in range(WORKERS)]
    command = [
        sys.executable, "-m", "mnist_exp", "-m", "dataset=digits", f"training.epochs={EPOCHS}", "sweep.name=team",
        "model.dropout=interval(0,0.5)", "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))",
        f"sweep.max_trials={TRIALS}", "sweep.pruner=off",
        "executor=dask", f"executor.address={dask.address}", f"tracking.uri={server.uri}",
    ]  # fmt: skip
    begun = time.monotonic()
    sweep = subprocess.Popen(command, cwd=folder)
    client = MlflowClient(server.uri)
    while not finished(client):
        if sweep.poll() is not None:
            return 1
        time.sleep(1)
    start = time.monotonic()
    print(f"{start - begun:.0f} s: the first trial is done", flush=True)
    threading.Thread(target=trouble, args=(start, server, dask, workers), daemon=True).start()
    status = sweep.wait()
    print(f"{time.monotonic() - begun:.0f} s: the sweep ended with status {status}")
    return report(client) or status


def trouble(start: float, server: Mlflow, dask: Dask, workers: list[subprocess.Popen]) -> None:
    chance = random.Random(0)
    plan = [(at, "worker") for at in KILLS] + [(SCHEDULER, "scheduler"), (AWAY[0], "stop"), (AWAY[1], "begin")]
    for at, what in sorted(plan):
        time.sleep(max(0.0, start + at - time.monotonic()))
        print(f"{at} s after that: {what}", flush=True)
        if what == "worker":
            nanny = psutil.Process(chance.choice(workers).pid)
            running = [child for child in nanny.children() if "spawn_main" in " ".join(child.cmdline())]
            max(running, key=lambda child: child.memory_info().rss).kill()
        elif what == "scheduler":
            dask.restart_scheduler()
            for worker in workers:
                kill(worker)
            workers[:] = [dask.add() for _ in range(WORKERS)]  # as a supervisor would: Dask's end with their scheduler
        elif what == "stop":
            server.stop()
        else:
            server.begin()


def finished(client: MlflowClient) -> list:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    condition = "tags.kind = 'trial' and attributes.status = 'FINISHED'"
    return list(client.search_runs(experiments, condition, max_results=1000))


def report(client: MlflowClient) -> int:
    runs = [run for run in finished(client) if "superseded" not in run.data.tags]
    numbers = Counter(run.data.tags["trial"] for run in runs)
    wrong = []
    for run in runs:
        for metric in ("train/loss", "val/accuracy"):
            steps = Counter(point.step for point in client.get_metric_history(run.info.run_id, metric))
            if steps != Counter(range(1, EPOCHS + 1)):
                wrong.append((run.info.run_name, metric, len(steps), steps.most_common(1)))
    others = Counter(
        (run.info.status, run.data.tags.get("superseded", run.data.tags.get("error", "")))
        for run in client.search_runs([r.info.experiment_id for r in runs[:1]], "tags.kind = 'trial'", max_results=1000)
        if run.info.run_id not in {r.info.run_id for r in runs}
    )
    print(f"{len(numbers)} trials finished, {sum(count > 1 for count in numbers.values())} of them twice")
    print(f"metrics missing or twice: {wrong or 'none'}")
    for (status, why), count in others.items():
        print(f"attempts that do not count: {count} {status}, {why}")
    return len(numbers) != TRIALS or len(runs) != TRIALS or bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
