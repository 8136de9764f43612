"""The form of the values of trials in the store.

Format 2 holds them as they are. Before it, a choice was a token of Hydra's syntax, such as `null` or `[128,64]`. A
sweep that began so keeps its format: `sweep.json` is never written again, and one rule reads all its trials.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from mnist_exp.sweep.space import Choices, Parameter, Space, Values
from mnist_exp.sweep.syntax import read_value
from mnist_exp.tracking.stored_run import TrialRun

FORMAT = 2
OUTSIDE = "its values are not in the space, which was changed after it began"
SPACE: TypeAdapter[Space] = TypeAdapter(Space)


class StoredValues:
    """The values of trials in format 2."""

    def decode(self, stored: Mapping[str, Any]) -> Values:
        """Returns the values that a trial's tag holds."""
        return dict(stored)

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the tag of a trial with these values holds."""
        return dict(values)


@dataclass(frozen=True)
class StoredTokens(StoredValues):
    """The values of trials in the format before 2: choices are told by the place of their token.

    parameters: each with its name in the store and the tokens of its choices; numbers have none.
    """

    parameters: Sequence[tuple[str, Parameter, Sequence[str]]]

    def decode(self, stored: Mapping[str, Any]) -> Values:
        """Returns the values that a trial's tag holds."""
        return {
            p.name: p.grid[tokens.index(stored[name])] if tokens else stored[name]
            for name, p, tokens in self.parameters
            if name in stored
        }

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the tag of a trial with these values holds."""
        return {
            name: tokens[p.values.index(values[p.name])] if isinstance(p.values, Choices) else values[p.name]
            for name, p, tokens in self.parameters
            if p.name in values
        }


def read_stored_space(record: Mapping[str, Any]) -> tuple[Space, StoredValues]:
    """Returns the space of a `sweep.json` and the format of its trials' values."""
    if record.get("format", 1) >= FORMAT:
        return SPACE.validate_python(record["space"]), StoredValues()
    found: list[tuple[str, Parameter, Sequence[str]]] = []
    for stored in record["space"]["parameters"]:
        key, when = stored["key"], stored["when"]
        name = f"{when['key']}={','.join(when['tokens'])}/{key}" if when else key
        plain = {**stored, "values": _plain(key, stored["values"]), "when": _plain(when["key"], when) if when else None}
        (parameter,) = SPACE.validate_python({"parameters": [plain]}).parameters
        found.append((name, parameter, stored["values"].get("tokens", ())))
    return Space(tuple(parameter for _, parameter, _ in found)), StoredTokens(found)


def judge(trials: Iterable[TrialRun], space: Space, stored: StoredValues) -> list[TrialRun]:
    """Returns trials with the values that the store holds; those outside of the space are excluded from winning."""
    decoded = [replace(trial, values=stored.decode(trial.values)) for trial in trials]
    return [one if space.holds(one.values) else replace(one, excluded=OUTSIDE) for one in decoded]


def read_stored_groups(record: Mapping[str, Any], text: str) -> str:
    """Returns the key of a config of `sweep.json`, its choices of groups, in format 2."""
    if record.get("format", 1) >= FORMAT:
        return text
    return json.dumps({group: read_value(group, token) for group, token in json.loads(text).items()})


def _plain(key: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Choices or a condition of a stored space, with values in the place of tokens."""
    if "tokens" not in stored:
        return dict(stored)
    kept = {name: value for name, value in stored.items() if name != "tokens"}
    return {**kept, "values": [read_value(key, token) for token in stored["tokens"]]}
