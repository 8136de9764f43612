"""Resuming a run or a sweep: the recorded config, and the keys that may be given beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

from mnist_exp.config.check import check_values, resolve
from mnist_exp.config.compose import BUNDLES, Composed, by_key, find_value
from mnist_exp.config.run_config import RunConfig, format_value
from mnist_exp.config.schema import SECTIONS, SWEEP_SECTIONS, Flag, keys_with
from mnist_exp.errors import ConfigError, Problem

RESUME, START = "training.resume", "training.start_from"  # keys that name a run
OF_RUNS = ("training", "tracking")
OF_SWEEPS = ("sweep", "executor", "tracking")


def check_single(composed: Composed) -> None:
    """Raises ConfigError for overrides that only a sweep has a use for."""
    own = {
        key: text
        for key, text in by_key(composed.overrides).items()
        if key.split(".")[0] in (*SWEEP_SECTIONS, "sweeps")
    }
    if own:
        remedy = f"add -m: python -m mnist_exp -m {' '.join(own.values())}"
        raise ConfigError(Problem(", ".join(own.values()), "can be given to a sweep only", remedy=remedy))


def wanted_run(composed: Composed, key: str = RESUME) -> str | None:
    """Returns the run that a key names, as it was typed; None if it names none."""
    wanted = find_value(composed.config, key)[1]
    if wanted is None or isinstance(wanted, str):
        return wanted
    # the start of an id that reads as a number, such as 12345678 or 1234e567
    return by_key(composed.overrides)[key].partition("=")[2]


def start_from(
    overrides: Sequence[str], run_id: str, values: Mapping[str, Any], choices: Mapping[str, str]
) -> list[str]:
    """Returns these overrides with training.start_from as an id. If they choose no net, it is that of the run.

    values, choices: the recorded config of that run.
    """
    given = by_key(overrides)
    kept = [text for key, text in given.items() if key != START]
    first = []
    if not any(key.partition(".")[0] in ("model", *BUNDLES) for key in given):
        first = [f"model={choices['model']}"] if "model" in choices else []
        first += [f"++model.{key}={format_value(value)}" for key, value in values["model"].items()]
    return [*first, *kept, f"{START}={format_value(run_id)}"]


def resume_run(composed: Composed, recorded: Mapping[str, Any], choices: Mapping[str, str], run_id: str) -> RunConfig:
    """Returns the recorded config of a run with the changes that a resumed run allows.

    Raises ConfigError for an override that a resumed run does not allow.
    """
    free = check_overrides(composed.overrides, OF_RUNS, "a resumed run")
    now = resolve(composed)
    changed = {key: value for key, value in now["training"].items() if f"training.{key}" in free}
    training = {**recorded["training"], **changed, "resume": run_id}
    return check_values({**recorded, "training": training, "tracking": now["tracking"]}, choices)


def check_overrides(
    overrides: Sequence[str], sections: Sequence[str], what: str, before: Sequence[str] = ()
) -> set[str]:
    """Returns the keys among the overrides that may change when something is resumed.

    before: overrides that it began with, which may be repeated. Raises ConfigError for any other.
    """
    given, began = by_key(overrides), by_key(before)
    whole = [name for name in sections if Flag.RESUME in SECTIONS[name].flags]
    single = [key for key in keys_with(Flag.RESUME, *sections) if key.split(".")[0] not in whole]
    free = {key for key in given if key in single or key.split(".")[0] in whole}
    if other := [given[key] for key in given if key not in free and began.get(key) != given[key]]:
        rule = f"keeps its recorded config{f' ({chr(32).join(before)})' if before else ''}"
        remedy = f"give only {', '.join([*single, *(f'{name}.*' for name in whole)])} beside it"
        raise ConfigError(Problem(what, rule, " ".join(sorted(other)), remedy))
    return free
