"""The environment of a run as tags: command, commit, versions, hardware."""

import functools
import getpass
import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mnist_exp.secrets import hide
from mnist_exp.tracking import tags

PACKAGE = Path(__file__).parents[1]
PACKAGES = ("mnist_exp", "tensorflow", "keras", "numpy", "mlflow", "scikit-learn", "hydra-core")


def collect_tags(artifacts: Path) -> dict[str, str]:
    """Returns the tags. Uncommitted changes are also written to artifacts/git.diff and artifacts/code.diff."""
    return _git(artifacts) | _code(artifacts) | _versions() | _hardware() | _command()


def _command() -> dict[str, str]:
    """Returns the command and the user, under the names that MLflow's pages show."""
    name = "python -m mnist_exp" if Path(sys.argv[0]).name == "__main__.py" else Path(sys.argv[0]).name
    return {
        tags.COMMAND: hide(shlex.join([*name.split(), *sys.argv[1:]])),
        tags.SOURCE_NAME: "mnist_exp",
        tags.SOURCE_TYPE: "LOCAL",
        tags.USER: user_name(),
    }


def user_name() -> str:
    """Returns the name of the user of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container that runs under a user id without a name
        return "unknown"


def _git(artifacts: Path) -> dict[str, str]:
    """Returns commit and state of the repository of the current folder; nothing if there is none."""
    state = _state(Path.cwd(), artifacts / "git.diff")
    return {tags.COMMIT: state[0], tags.DIRTY: state[1]} if state else {}


def _code(artifacts: Path) -> dict[str, str]:
    """Returns the version of this package and, if it lies in a checkout of its own, commit and state of that."""
    found = {tags.CODE_VERSION: _version("mnist_exp"), tags.CODE_DIGEST: digest_code()}
    # A virtual environment often lies within another repository, which does not know the package's files.
    if _output("git", "-C", str(PACKAGE), "ls-files", "--error-unmatch", "__init__.py"):
        state = _state(PACKAGE, artifacts / "code.diff")
        found |= {tags.CODE_COMMIT: state[0], tags.CODE_DIRTY: state[1]} if state else {}
    return found


@functools.cache
def digest_code() -> str:
    """Returns a hash of the files of this package, as they were when it was asked first."""
    sha = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        sha.update(f"{path.relative_to(PACKAGE).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return sha.hexdigest()


def _state(folder: Path, diff: Path) -> tuple[str, str] | None:
    """Returns commit and `true` or `false` for changes of the repository of a folder; None if there is none."""
    git = "git", "-C", str(folder)
    commit = _output(*git, "rev-parse", "HEAD")
    if not commit:
        return None
    dirty = bool(_output(*git, "status", "--porcelain"))
    if dirty and (text := _output(*git, "diff", "HEAD")):
        diff.write_text(hide(text[:1_000_000]), encoding="utf-8")
    return commit, str(dirty).lower()


def _output(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _versions() -> dict[str, str]:
    versions = {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()}
    return {f"{tags.VERSION}{name}": found for name, found in versions.items()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was not installed
        return "not installed"


def _hardware() -> dict[str, str]:
    import psutil
    import tensorflow as tf

    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    hardware = {
        "cores": str(usable_cores()),
        "cpu": _cpu_name(),
        "memory_gb": f"{psutil.virtual_memory().total / 2**30:.0f}",
        "gpus": ", ".join(str(gpu.get("device_name", "GPU")) for gpu in gpus) or "none",
    }
    return {**{f"{tags.HARDWARE}{key}": value for key, value in hardware.items()}, tags.SYSTEM: platform.platform()}


def usable_cores() -> int:
    """Returns the number of cores that this process may use; on macOS, which does not tell, all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists() and (name := re.search(r"^model name\s*:(.*)", info.read_text(), re.MULTILINE)):
        return name[1].strip()
    return platform.processor() or platform.machine()
