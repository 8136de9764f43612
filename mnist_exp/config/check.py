"""Checks a composed config against the signatures of the functions that will receive it; nothing heavy loads."""

import inspect
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import hydra.utils
from annotated_types import Len
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, ValidationError, create_model

from mnist_exp import data, optimizers
from mnist_exp.config.compose import OF_SWEEPS, did_you_mean, explain
from mnist_exp.config.schema import Executor, Seed, Sweep, Tracking, Training
from mnist_exp.config.targets import _function, _hint
from mnist_exp.errors import ConfigError

# What the program passes itself; a config does not hold these.
GIVEN = {"image_shape", "classes", "steps", "dataset", "rate"}
PIECES: dict[str, list[Callable]] = {
    "dataset": [data.split],
    "model": [],
    "optimizer": [optimizers.learning_rate_schedule],
    "training": [Training],
    "tracking": [Tracking],
    "sweep": [Sweep],
    "executor": [Executor],
}
# How pydantic says it: how we do.
WORDS = {
    r"^\w+ should": "must",
    "a valid ": "a ",
    "a integer": "an integer",
    "a boolean": "true or false",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}

logging.getLogger(hydra.utils.__name__).disabled = True  # it would announce a wrong _target_ a second time


def check(cfg: DictConfig) -> None:
    """Raises one ConfigError that lists every unknown, missing or unusable value of the config."""
    found = list(problems(cfg))
    if found:
        remedy = "--cfg job prints the whole config, with the defaults of what you leave out"
        raise ConfigError("\n".join([*found, remedy]))


def problems(cfg: DictConfig) -> Iterator[str]:
    """What makes a config unusable, one line each."""
    try:
        values: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        yield explain(error)
        return
    yield from _section_problems("", {key: values[key] for key in values if key not in PIECES}, [_top_level])
    for section, pieces in PIECES.items():
        if section not in values and section in OF_SWEEPS:
            continue
        if not isinstance(values.get(section), dict):
            yield f"{section} must hold keys, but got {_received(values.get(section))}; choose with {section}=..."
            continue
        keys = dict(values[section])
        functions = list(pieces)
        if missing := [key for key, value in keys.items() if value == "???"]:
            yield from (f"{section}.{key} is missing; give {section}.{key}=..." for key in missing)
            continue
        if "_target_" in keys:
            target = keys.pop("_target_")
            try:
                functions.append(_function(target))
            except ImportError as error:
                yield (
                    f"{section}._target_ must be a function that can be imported, but got {_received(target)}: {error}"
                )
                continue
        yield from _section_problems(f"{section}.", keys, functions)
    yield from _relations(values)


def _top_level(seed: Seed, name: Annotated[str, Len(1, 200)] | None, export: str | None) -> None:
    """The keys outside the sections, as a signature to check them against."""


def _section_problems(prefix: str, keys: dict[str, Any], functions: list[Callable]) -> Iterator[str]:
    fields: dict[str, Any] = {}
    open_ended = False
    for function in functions:
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in GIVEN]
        open_ended |= any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        fields |= {p.name: (_hint(function, p), ... if p.default is p.empty else p.default) for p in named}
    config = ConfigDict(
        strict=True, extra="allow" if open_ended else "forbid", arbitrary_types_allowed=True, allow_inf_nan=False
    )
    try:
        create_model("Section", __config__=config, **fields)(**keys)
    except ValidationError as error:
        # A union reports each of its branches; one line a key is what a reader needs.
        seen: dict[str, list[Any]] = {}
        for problem in error.errors():
            seen.setdefault(str(problem["loc"][0]), []).append(problem)
        for key, found in seen.items():
            yield _sentence(prefix, key, found, list(fields))


def _sentence(prefix: str, key: str, found: list[Any], known: list[str]) -> str:
    first = found[0]
    if first["type"] == "extra_forbidden":
        return f"there is no key {prefix}{key}{did_you_mean(key, known)}; it takes {', '.join(known)}"
    if first["type"] == "missing":
        return f"{prefix}{key} is missing; give +{prefix}{key}=..."
    inside = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"][1:])
    place = f"{prefix}{key}" + (inside.removesuffix(".[key]") if len(found) == 1 else "")
    rules = " or ".join(dict.fromkeys(_rule(problem["msg"]) for problem in found)).replace(" or must be ", " or ")
    return f"{place} {rules}, but got {_received(first['input'])}"


def _rule(message: str) -> str:
    for theirs, ours in WORDS.items():
        message = re.sub(theirs, ours, message)
    return message


def _received(value: Any) -> str:
    return "null" if value is None else repr(value)


def _relations(values: dict[str, Any]) -> Iterator[str]:
    """Rules that tie several keys together."""
    training, optimizer = (values.get(section) or {} for section in ("training", "optimizer"))
    smoothing = training.get("label_smoothing")
    if smoothing and training.get("loss") == "sparse_categorical_crossentropy":
        yield (
            "training.label_smoothing needs training.loss=categorical_crossentropy, "
            f"but got {smoothing} with sparse labels"
        )
    if training.get("reduce_lr_patience") is not None and optimizer.get("schedule") == "cosine":
        yield (
            "training.reduce_lr_patience must be null with optimizer.schedule=cosine, which sets the rate itself, "
            f"but got {training['reduce_lr_patience']}"
        )
    if optimizer.get("warmup") and optimizer.get("schedule") == "constant":
        yield f"optimizer.warmup needs optimizer.schedule=cosine, but got {optimizer['warmup']} with a constant rate"
    if isinstance(export := values.get("export"), str) and (
        Path(export).suffix != ".h5" or Path(export).name != export
    ):
        yield f"export must be a file name that ends in .h5, without a folder, but got {export!r}"
    sweep = values.get("sweep") or {}
    if isinstance(objective := sweep.get("objective"), str):
        wanted = "min" if objective.endswith(("loss", "error")) else "max"
        if sweep.get("direction") != wanted:
            yield f"sweep.direction must be {wanted} for {objective}, but got {_received(sweep.get('direction'))}"
        if sweep.get("pruning") == "median" and objective not in ("val/accuracy", "val/loss"):
            yield (
                "sweep.pruning=median needs an objective that is known after every epoch, val/accuracy or val/loss, "
                f"but got {objective}"
            )
    if values.get("export") and not (values.get("tracking") or {}).get("enabled", True):
        yield f"export needs tracking, which keeps the file with the run, but got {export!r} with tracking=off"
