"""The store of version 4bcc55e, unpacked and moved to where the tests run.

The tests reach it as a user does: by the command line and by MLflow's client. make_store.py says what is in it.
"""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored import client_of, runs

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """What version 4bcc55e said of its own store."""
    found: dict[str, Any] = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory, expected: dict[str, Any], main_in: Callable) -> Path:
    """The folder of the old store, which all tests share and none may change."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(HERE / "store_4bcc55e.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    who = ("-c", "user.name=user", "-c", "user.email=user@host", "-c", "commit.gpgsign=false")
    for command in (("init", "--quiet"), ("add", "."), (*who, "commit", "--quiet", "-m", "A net")):
        subprocess.run(("git", *command), cwd=folder, check=True, timeout=60)  # where the runs began, too
    status, out, err = main_in(folder, "store", "move", f"{expected['folder']}/mlruns", "mlruns")
    assert status == 0, out + err
    return folder


@pytest.fixture
def copy(old: Path, tmp_path: Path, main_in: Callable) -> Path:
    """A copy of it that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(old, folder)
    status, out, err = main_in(folder, "store", "move", str(old / "mlruns"), "mlruns")
    assert status == 0, out + err
    client = client_of(folder)
    for run in runs(client, "tags.kind = 'run' and attributes.status = 'KILLED'"):
        # store move leaves the tag `folder` as it was. Once it moves that, too, this changes nothing.
        place = folder / "mlruns" / "running" / Path(run.data.tags["folder"]).name
        assert place.is_dir()
        client.set_tag(run.info.run_id, "folder", str(place))
    return folder
