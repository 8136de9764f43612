"""Names are an interface: today's code writes, for the same command, the names that version 4bcc55e wrote.

Names of tags, metrics, parameters and artifacts may be added, but not renamed. What trials and executions write is held
where old sweeps go on, in test_old_unfinished.py.
"""

import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from stored import MOVED, assert_nothing_renamed, client_of, file_of, names_of, read_json, run_named, runs, trials_of

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(copy: Path) -> Path:
    """run_main works in a copy of the old store."""
    return copy


@pytest.mark.parametrize("name", ["smoothed", "best-weights", "own-classes"])
def test_a_run_writes_what_it_wrote(run_main: Main, copy: Path, name: str) -> None:
    client = client_of(copy)
    old = run_named(client, name)
    _, *overrides = shlex.split(old.data.tags["command"])
    status, _, err = run_main(*overrides)
    assert status == 0, err
    new = newest(runs(client, f"attributes.run_name = '{name}'"), old)
    assert_nothing_renamed(names_of(client, old), names_of(client, new))
    assert new.data.tags["kind"] == "run"
    before = {key: value for key, value in unlocated(old.data.params).items() if key not in MOVED}
    assert unlocated(new.data.params).items() >= before.items()


@pytest.mark.parametrize("name", ["diverged", "raised"])
def test_a_failed_run_writes_what_it_wrote(run_main: Main, copy: Path, name: str) -> None:
    client = client_of(copy)
    old = run_named(client, name)
    _, *overrides = shlex.split(old.data.tags["command"])
    with suppress(ValueError):  # raised by a net of the user's own, it may reach the caller
        assert run_main(*overrides)[0] == 1
    new = newest(runs(client, f"attributes.run_name = '{name}'"), old)
    assert new.info.status == "FAILED"
    assert_nothing_renamed(names_of(client, old), names_of(client, new))
    assert new.data.tags["error"] == old.data.tags["error"]


def test_a_sweep_writes_what_it_wrote(run_main: Main, copy: Path) -> None:
    """One trial is scored, the other fails."""
    client = client_of(copy)
    old = run_named(client, "one-failed")
    status, out, err = run_main("-m", *read_json(file_of(old, "sweep.json"))["overrides"])
    assert status == 0, out + err
    new = newest(runs(client, "attributes.run_name = 'one-failed'"), old)
    assert (new.info.status, new.data.tags["kind"]) == ("FINISHED", "sweep")
    assert_nothing_renamed(names_of(client, old), names_of(client, new))
    assert keys(read_json(file_of(new, "sweep.json"))) >= keys(read_json(file_of(old, "sweep.json")))
    for before, now in zip(trials_of(client, old), trials_of(client, new), strict=True):
        assert (now.info.status, now.data.tags["trial"]) == (before.info.status, before.data.tags["trial"])
        assert_nothing_renamed(names_of(client, before), names_of(client, now))


def newest(found: list[Run], old: Run) -> Run:
    """The one run beside the old one."""
    (new,) = (run for run in found if run.info.run_id != old.info.run_id)
    return new


def unlocated(params: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in params.items() if not key.startswith("tracking.")}


def keys(section: Any, prefix: str = "") -> set[str]:
    """The dotted keys of a nested dict."""
    if not isinstance(section, dict):
        return {prefix}
    return {prefix}.union(*(keys(value, f"{prefix}.{key}") for key, value in section.items()))
