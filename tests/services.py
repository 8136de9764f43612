"""Servers that tests and benchmarks start on 127.0.0.1 and end again: Dask, PostgreSQL, MLflow's."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import requests

# What a scheduler and its workers import: it reads the trials on their way to them.
HERE = Path(__file__).parent
PATHS = os.pathsep.join(filter(None, [str(HERE), str(HERE / "sweep"), os.environ.get("PYTHONPATH")]))


def path_of(program: str, package: str) -> str:
    """The path of a program of the system. Raises FileNotFoundError, which names the Debian package that has it."""
    if path := shutil.which(program):
        return path
    raise FileNotFoundError(f"{program} is not installed; on Debian: apt-get install --no-install-recommends {package}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(met: Callable[[], object], what: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not met():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not come about within {seconds:g} s")
        time.sleep(0.1)


def kill(process: subprocess.Popen) -> None:
    """A process with all it started, as SIGKILL does."""
    with suppress(psutil.NoSuchProcess):
        for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()


class Services:
    """Processes that end with the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            kill(process)

    def start(self, command: Sequence[str], user: str | None = None, **environment: str) -> subprocess.Popen:
        """A process whose output goes to a file of this folder."""
        with (self.folder / f"{len(self.processes)}.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **environment}, stdout=log, stderr=log, user=user
            )
        self.processes.append(process)
        return process


class Dask(Services):
    """A scheduler and its workers."""

    LOCAL = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")

    def __init__(self, folder: Path, tls: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self.keys = [*self.LOCAL, *tls]
        self.scheduler = self._scheduler("0")
        self.address = self._address()

    def restart_scheduler(self) -> None:
        """Killed, and another at the same address."""
        kill(self.scheduler)
        self.scheduler = self._scheduler(self.address.rpartition(":")[2])
        assert self._address() == self.address

    def add(self, *more: str) -> subprocess.Popen:
        """A worker of one thread, with a nanny."""
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--nthreads", "1", *self.keys]
        return self.start([*command, *more], PYTHONPATH=PATHS)

    def _scheduler(self, port: str) -> subprocess.Popen:
        (self.folder / "scheduler.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", port, *self.keys]
        return self.start([*command, "--scheduler-file", "scheduler.json"], PYTHONPATH=PATHS)

    def _address(self) -> str:
        path = self.folder / "scheduler.json"
        wait_for(lambda: path.is_file() and path.read_text().endswith("}"), "a scheduler")
        return str(json.loads(path.read_text())["address"])


class Postgres(Services):
    """An empty database `mlflow` at `uri`; PostgreSQL refuses root, and so runs as Debian's user for it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        path_of("psql", "postgresql")
        tools = max(Path("/usr/lib/postgresql").glob("*/bin"))
        self.user = None if os.geteuid() else "postgres"
        data, port = folder / "postgres", str(free_port())
        data.mkdir()
        if self.user:
            os.chown(data, pwd.getpwnam(self.user).pw_uid, -1)
        keys = ["--username=mlflow", "--auth=trust", "--no-sync", "--encoding=UTF8"]
        subprocess.run([tools / "initdb", "-D", data, *keys], user=self.user, cwd="/", check=True, capture_output=True)
        self.command = [str(tools / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", port, "-k", str(data)]
        self.start(self.command, self.user)
        reach = [tools / "psql", "-h", "127.0.0.1", "-p", port, "-U", "mlflow", "-d", "postgres"]
        make = [*reach, "-c", "CREATE DATABASE mlflow"]
        wait_for(lambda: not subprocess.run(make, capture_output=True).returncode, "PostgreSQL")
        self.uri = f"postgresql+psycopg://mlflow@127.0.0.1:{port}/mlflow"


class Mlflow(Services):
    """MLflow's server, artifacts proxied to a local folder."""

    def __init__(self, folder: Path, database: str, login: tuple[str, str] | None = None) -> None:
        """login: user and password of its only user; by default it asks nobody."""
        super().__init__(folder)
        port = str(free_port())
        self.uri = f"http://127.0.0.1:{port}"
        self.command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--workers", "2"]
        self.command += ["--host", "127.0.0.1", "--port", port, "--artifacts-destination", str(folder / "artifacts")]
        self.environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        if login:
            user, password = login
            # A password is checked once a minute; each check takes 0.1 s of a core.
            checks = "default_permission = READ\nauth_cache_ttl_seconds = 60"
            (folder / "login.ini").write_text(
                f"[mlflow]\n{checks}\ndatabase_uri = sqlite:///{folder}/users.db\n"
                f"admin_username = {user}\nadmin_password = {password}\n"
                "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            )
            self.environment |= {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "login.ini")}
            self.environment |= {"MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test"}
            self.command += ["--app-name", "basic-auth"]
        self.begin()

    def begin(self) -> None:
        """Starts it, or starts it again."""
        self.server = self.start(self.command, **self.environment)
        wait_for(self._is_healthy, "MLflow's server", 120)

    def stop(self) -> None:
        """Kills it."""
        kill(self.server)

    def _is_healthy(self) -> bool:
        with suppress(requests.ConnectionError):
            return requests.get(f"{self.uri}/health", timeout=5, proxies={"http": ""}).ok
        return False


class Slurm(Services):
    """One node with four places for jobs, whatever the machine has; `environment` is what its commands need."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        path_of("slurmctld", "slurm-wlm")
        host = socket.gethostname()
        conf = folder / "slurm.conf"
        conf.write_text(
            f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""
        )
        for name in ("state", "spool"):
            (folder / name).mkdir()
        self.environment = {"SLURM_CONF": str(conf)}
        self.start(["slurmctld", "-D"], **self.environment)
        self.start(["slurmd", "-D", "-N", host], **self.environment)
        wait_for(lambda: "idle" in self.ask("sinfo", "--noheader"), "a Slurm node")

    def __exit__(self, *error: object) -> None:
        self.ask("scancel", "--full", "--signal=KILL", "--user=root")  # what runs a job is no child of the daemons
        with suppress(TimeoutError):
            wait_for(lambda: not self.ask("squeue", "--noheader"), "the end of all jobs", 20)
        super().__exit__(*error)

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        return subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False
        ).stdout
