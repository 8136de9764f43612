"""Finds every problem of a config before anything is loaded or trained."""

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mnist_exp.config.components import ROLES, find_component_problems
from mnist_exp.config.compose import Composed, first_line
from mnist_exp.config.objective import known_direction
from mnist_exp.config.run_config import RunConfig, plain
from mnist_exp.config.schema import SECTIONS, Flag, Rule, Section, section_model
from mnist_exp.config.targets import import_target
from mnist_exp.errors import ABSENT, ConfigError, Problem, nearest

# pydantic's error types in our words; `ctx` of an error fills in the numbers.
RULES = {
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "dict_type": "must hold keys",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have a length of at least {min_length}",
    "too_long": "must have a length of at most {max_length}",
    "literal_error": "must be {expected}",
}
# Metrics that are computed once, at the end of a training.
AT_THE_END = ("macro_f1", "macro_precision", "macro_recall", "calibration_error", "balanced_accuracy")


def check(composed: Composed) -> RunConfig:
    """Returns the config of a run. Raises one ConfigError that lists every unknown, missing or unusable value."""
    return check_values(resolve(composed), composed.choices)


def check_values(values: Mapping[str, Any], choices: Mapping[str, str]) -> RunConfig:
    """Returns the config of these values, `~` expanded in paths. Raises ConfigError with every problem."""
    if found := list(find_problems(values)):
        raise ConfigError(found)
    return RunConfig(_expand_paths(values), choices)


def resolve(composed: Composed) -> dict[str, Any]:
    """Returns the values of a composed config. Raises ConfigError if an interpolation cannot be resolved."""
    try:
        return plain(composed.config)
    except OmegaConfBaseException as error:
        raise ConfigError(Problem(str(error.full_key), "cannot be resolved", remedy=first_line(error))) from error


def find_problems(values: Mapping[str, Any], sections: Iterable[str] = tuple(SECTIONS)) -> Iterator[Problem]:
    """Yields what makes a config unusable: in these sections, and between keys.

    values: nested, resolved. Sections of sweeps may be absent.
    """
    for section in sections:
        keys = values.get(section) if section else {key: values[key] for key in values if key not in SECTIONS}
        if isinstance(keys, Mapping):
            yield from _check_section(section, keys)
        elif section in values or not SECTIONS[section].sweep_only:
            yield Problem(section, "must hold keys", keys, f"choose with {section}=NAME")
    yield from _check_rules(values)


def field_of(values: Mapping[str, Any], key: str) -> FieldInfo | None:
    """Returns the field of a dotted key in a config of these values; None if the config has no such key."""
    section, _, name = key.rpartition(".")
    if section not in SECTIONS:
        return None
    return _model_of(section, values[section] if section else values).model_fields.get(name)


def _model_of(section: str, keys: Mapping[str, Any]) -> type[Section]:
    """Returns the model of a section with these keys. Raises ImportError for a `_target_` that cannot be used."""
    target = import_target(keys["_target_"]) if "_target_" in keys else None
    return section_model(section, target, str(keys.get("kind")))


def _check_section(section: str, keys: Mapping[str, Any]) -> Iterator[Problem]:
    dot = f"{section}." if section else ""
    if missing := [key for key, value in keys.items() if value == "???"]:
        yield from (Problem(f"{dot}{key}", "is missing", remedy=f"give {dot}{key}=...") for key in missing)
        return
    given = {key: value for key, value in keys.items() if key != "_target_"}
    try:
        model = _model_of(section, keys)
        model.model_validate(given)
    except ImportError as error:
        yield Problem(f"{dot}_target_", "must be a function that can be imported", keys["_target_"], str(error))
    except ValidationError as error:
        by_path: dict[str, list[ErrorDetails]] = {}
        for details in error.errors(include_url=False):
            by_path.setdefault(_path(details["loc"], given), []).append(details)
        yield from (_problem(section, path, found, model.model_fields) for path, found in by_path.items())


def _problem(section: str, path: str, found: list[ErrorDetails], fields: Mapping[str, FieldInfo]) -> Problem:
    """The problem of one key; a union reports each of its branches."""
    dot = f"{section}." if section else ""
    key, first = f"{dot}{path}", found[0]
    if first["type"] == "extra_forbidden":
        hint = nearest(path, list(fields)).replace("mean ", f"mean {dot}")
        return Problem(key, "does not exist", remedy=hint or f"{section or 'the top level'} has {', '.join(fields)}")
    if first["type"] == "missing":
        return Problem(key, "is missing", remedy=f"give +{key}=...")
    info = fields.get(path.partition("[")[0].partition(".")[0])
    marks = info.metadata if info else []
    own = [mark.text for mark in marks if isinstance(mark, Rule)]
    rules = own or list(dict.fromkeys(map(_rule, found)))
    value = ABSENT if Flag.SECRET in marks else first["input"]
    return Problem(key, " or ".join(rules).replace(" or must be ", " or "), value)


def _rule(details: ErrorDetails) -> str:
    if details["type"] not in RULES:
        return f"cannot be used ({details['msg']})"
    numbers = {k: f"{v:g}" if isinstance(v, float) else v for k, v in details.get("ctx", {}).items()}
    return RULES[details["type"]].format(**numbers)


def _path(location: tuple[int | str, ...], value: Any) -> str:
    """`widths[1]` of ("widths", 1). What pydantic adds to name the branch of a union is in no value and left out."""
    path = ""
    for part in location:
        if isinstance(value, Mapping) and (part in value or not path):
            value, path = value.get(part), f"{path}.{part}"
        elif isinstance(value, list) and isinstance(part, int):
            value, path = value[part], f"{path}[{part}]"
    return path.removeprefix(".")


def _expand_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with `~` expanded in the keys that are files or folders."""
    expanded = copy.deepcopy(dict(values))
    for section in SECTIONS.keys() & expanded.keys():
        keys = expanded[section]
        for key, info in _model_of(section, keys).model_fields.items():
            if Flag.PATH in info.metadata and str(keys.get(key)).startswith("~"):
                keys[key] = os.path.expanduser(keys[key])  # an unknown user stays as written; Path would raise
    return expanded


def _check_rules(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Rules between several keys."""
    training, optimizer = (values.get(section) or {} for section in ("training", "optimizer"))
    smoothing = training.get("label_smoothing")
    loss, schedule = training.get("loss"), optimizer.get("schedule")
    if smoothing and loss != "categorical_crossentropy":
        shown = (
            f"training.loss={loss}" if isinstance(loss, str) else "a loss of your own, which may take it as its own key"
        )
        remedy = "give training.loss=categorical_crossentropy"
        yield Problem("training.label_smoothing", f"must be 0 with {shown}", smoothing, remedy)
    if training.get("reduce_lr_patience") is not None and (schedule != "constant" or optimizer.get("warmup")):
        by = f"optimizer.schedule={schedule}" if isinstance(schedule, str) and schedule != "constant" else "a schedule"
        rule = f"must be null with {by}, which sets the rate itself"
        yield Problem("training.reduce_lr_patience", rule, training["reduce_lr_patience"])
    if optimizer.get("use_ema") and training.get("weights") == "best":
        rule = "must be last with optimizer.use_ema, which averages the weights of the whole training"
        yield Problem("training.weights", rule, "best")
    for key in ROLES:
        section, _, name = key.partition(".")
        value = (values.get(section) or {}).get(name) if name else values.get(section)
        if isinstance(value, list):
            for place, entry in enumerate(value):
                yield from find_component_problems(key, entry, f"{key}[{place}]")
        elif isinstance(value, Mapping):
            yield from find_component_problems(key, value)
    export = values.get("export")
    if isinstance(export, str) and (Path(export).suffix != ".h5" or Path(export).name != export):
        yield Problem("export", "must be a file name that ends in .h5, without a folder", export)
    if export and not (values.get("tracking") or {}).get("enabled", True):
        yield Problem("export", "must be null with tracking=off, because the file is kept with the tracked run", export)
    yield from _check_sweep_rules(values.get("sweep") or {})


def is_known_every_epoch(metric: str) -> bool:
    """Whether a metric has a value after every epoch: what Keras reports, metrics of the user's own included."""
    split, _, name = metric.partition("/")
    return split in ("train", "val") and bool(name) and name not in AT_THE_END


def _check_feeding_rules(sweep: Mapping[str, Any]) -> Iterator[Problem]:
    """Rules between sweep.reuse, sweep.confirm and what they cannot be used with."""
    by_brackets = "hyperband" in (sweep.get("pruner"), sweep.get("algorithm"))
    if sweep.get("reuse") and (by_brackets or sweep.get("executions") != 1):
        other = "Hyperband, whose trials continue each other" if by_brackets else "sweep.executions above 1"
        yield Problem("sweep.reuse", f"must be false with {other}", True)
    if sweep.get("confirm") and by_brackets:
        yield Problem("sweep.confirm", "must be null with Hyperband", sweep["confirm"])


def _check_sweep_rules(sweep: Mapping[str, Any]) -> Iterator[Problem]:
    metric = sweep.get("objective")
    if not isinstance(metric, str):
        return
    direction = known_direction(metric)
    if direction and sweep.get("direction") != direction:
        yield Problem("sweep.direction", f"must be {direction} for {metric}", sweep.get("direction"))
    limits = sweep.get("constraints")
    for key, name in [("objective", metric), *(("constraints", str(name)) for name in limits or ())]:
        if name.startswith("test/"):
            yield Problem(f"sweep.{key}", "must not be a metric of the test set, which is not for choosing", name)
    for pruner in ("median", "asha"):
        if pruner in (sweep.get("pruner"), sweep.get("pruning")) and not is_known_every_epoch(metric):
            rule = f"must be known after every epoch with sweep.pruner={pruner}, as val/accuracy and val/loss are"
            yield Problem("sweep.objective", rule, metric)
    yield from _check_feeding_rules(sweep)
    if "hyperband" in (sweep.get("pruner"), sweep.get("algorithm")):
        for key in ("sampler", "algorithm"):
            if sweep.get(key) not in (None, "auto", "random", "hyperband"):
                rule = "must be auto or random with Hyperband, which draws its configurations at random"
                yield Problem(f"sweep.{key}", rule, sweep[key])
    for key in ("pruner", "pruning"):
        if sweep.get("algorithm") == "hyperband" and sweep.get(key) in ("median", "asha"):
            rule = f"must be off{' or hyperband' * (key == 'pruner')} with sweep.algorithm=hyperband"
            yield Problem(f"sweep.{key}", rule, sweep[key], "a sweep has one pruner")
    for old, key in (("algorithm", "sampler"), ("pruning", "pruner")):
        if sweep.get(old) is not None and sweep.get(key, "auto") not in ("auto", "off"):
            rule = f"must be null beside sweep.{key}={sweep[key]}, which replaces it"
            yield Problem(f"sweep.{old}", rule, sweep[old])
