"""Values of trials that somebody has chosen: sweep.first, and what is added while the sweep runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_exp.config.compose import flatten
from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import format_value
from mnist_exp.errors import ConfigError, Problem, nearest
from mnist_exp.sweep.space import Choices, Parameter, Space, Values
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.syntax import read_assignments
from mnist_exp.sweep.trial import Queued
from mnist_exp.sweep.winner import rank
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import RUNS, RUNS_AND_SWEEPS, find_run, is_chosen
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, fetch_run, read_config
from mnist_exp.tracking.sweep_run import SweepRun

DEFAULTS = "defaults"
OF_A_SWEEP = 5  # its best trials that fit
FIRST = "first/"


def read_first(study: Study, store: Store | None) -> tuple[Queued, ...]:
    """Returns the values of sweep.first, in its order, none twice. store: None if there is none yet.

    Raises ConfigError for what does not fit the space, TrackingError for a run that is unknown.
    """
    chosen: dict[str, Values] = {}
    for entry in study.settings.first:
        for values in _read_entry(study, store, entry):
            chosen.setdefault(format_value(values), values)
    return tuple(Queued(f"{FIRST}{number}", values) for number, values in enumerate(chosen.values(), 1))


def _read_entry(study: Study, store: Store | None, entry: str) -> Iterator[Values]:
    place = f"sweep.first: {entry}"
    if entry == DEFAULTS:
        yield fit(study.space, study.configs.defaults(), place)
    elif Path(entry).suffix in (".yaml", ".yml"):
        given = _read_file(Path(entry).expanduser(), place)
        yield fit(study.space, {**study.configs.defaults(given), **given}, place)
    elif store is None:
        raise ConfigError(Problem(place, "needs a store with runs, but there is none yet"))
    else:
        run = find_run(store, entry, among=RUNS if is_chosen(entry) else RUNS_AND_SWEEPS)
        if run.tags.get(tags.KIND) == "sweep":
            yield from _best_of(SweepRun.find(store, run.id), study.space, place)
        else:
            yield fit(study.space, _read_values(store, run), place)


def _best_of(sweep: SweepRun, space: Space, place: str) -> list[Values]:
    """Returns the values of the best trials of a sweep that fit the space. Raises ConfigError if none does."""
    settings, found, problems = sweep.record["settings"], list[Values](), list[Problem]()
    for trial in rank(sweep.trials(), Objective(settings["objective"], settings["direction"])):
        try:
            found.append(fit(space, _read_values(sweep.store, fetch_run(sweep.store, trial.run_id)), place))
        except ConfigError as error:
            problems += error.problems
        if len(found) == OF_A_SWEEP:
            break
    if not found:
        raise ConfigError(problems[:1] or Problem(place, "must be a sweep with a complete trial"))
    return found


def _read_values(store: Store, run: StoredRun) -> dict[str, Any]:
    """Returns the config of a run by dotted key, and its choices by group."""
    return {**dict(flatten(read_config(store, run))), **run.choices}


def _read_file(path: Path, place: str) -> dict[str, Any]:
    """Returns what an experiment file gives, such as best.yaml: values by dotted key, and choices by group."""
    from yaml import YAMLError, safe_load  # type: ignore[import-untyped]

    try:
        content = safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(Problem(place, f"must be a YAML file that can be read ({reason})")) from error
    if not isinstance(content, dict):
        raise ConfigError(Problem(place, "must hold keys, such as optimizer.learning_rate: 0.001"))
    defaults = content.pop("defaults", None) or []
    chosen = [entry for entry in defaults if isinstance(entry, dict)] if isinstance(defaults, list) else []
    groups = {str(key).removeprefix("override ").strip("/ "): v for entry in chosen for key, v in entry.items()}
    return {**groups, **dict(flatten(content))}


def read_added(study: Study, words: Sequence[str], best: Values | None) -> Values:
    """Returns the values of a trial that `key=value` words describe.

    What they leave out is as in the best trial; without one, as in the defaults. Raises ConfigError for a key that the
    sweep does not choose, and for a value that does not fit its space.
    """
    keys, given = list(dict.fromkeys(one.key for one in study.space.parameters)), read_assignments(words)
    if unknown := next((key for key in given if key not in keys), None):
        rule = f"must be a key that the sweep chooses: {', '.join(keys)}"
        raise ConfigError(Problem(unknown, rule, remedy=nearest(unknown, keys)))
    known = study.space.assigned(best) if best else {}
    return fit(study.space, {**study.configs.defaults({**known, **given}), **known, **given}, "the trial")


def fit(space: Space, found: Mapping[str, Any], place: str) -> Values:
    """Returns the values of a trial. found: by config group or dotted key. Raises ConfigError for the first misfit."""

    def choose(parameter: Parameter) -> Any:
        key = parameter.key
        if key not in found:
            raise ConfigError(Problem(f"{place}: {key}", "must have a value", remedy=f"give {key}=VALUE"))
        if (value := _match(parameter, found[key])) is None:
            raise ConfigError(Problem(f"{place}: {key}", f"must fit the space, {describe(parameter)}", found[key]))
        return value

    return space.sample(choose)


def describe(parameter: Parameter) -> str:
    """Returns what a parameter may be, in words."""
    allowed = parameter.values
    if isinstance(allowed, Choices):
        return f"one of {', '.join(map(format_value, allowed.values))}"
    counted = f"{len(allowed.values)} numbers " if allowed.enumerable else ""
    return f"{counted}from {allowed.low:g} to {allowed.high:g}"


def _match(parameter: Parameter, value: Any) -> Any:
    """Returns the value as the space has it: 1 for 1.0, a number of a range for one beside it. None if it has not."""
    allowed = parameter.values
    if isinstance(allowed, Choices):
        same = [one for one in allowed.values if one is not None and type(value) in (int, float) and one == value]
        return allowed.values[allowed.index(value)] if value in allowed else next(iter(same), None)
    if value not in allowed:
        return None
    if allowed.enumerable:
        return min(allowed.values, key=lambda number: math.fabs(number - value))
    return round(value) if allowed.whole else float(value)
