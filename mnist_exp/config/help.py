"""The text of --help: the choices, and every key with its comment from conf/."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from mnist_exp.config.compose import BUNDLES, CONF, GROUPS, choices_of
from mnist_exp.config.run_config import format_value
from mnist_exp.secrets import hide

WIDTH, COMMENT = 80, 36  # columns of a line, and before a comment


def register_help() -> None:
    """Makes `${mnist_exp.choices:}` and `${mnist_exp.keys:}` known to the templates of conf/hydra/help."""
    OmegaConf.register_new_resolver("mnist_exp.choices", _choices, replace=True)
    OmegaConf.register_new_resolver("mnist_exp.keys", _keys, replace=True)


def comments(path: Path) -> dict[str, str]:
    """Returns the comment behind each key of a YAML file, by dotted key. A key without one has an empty string."""
    text = path.read_text(encoding="utf-8")
    return dict(_comments(yaml.compose(text), text.splitlines(), ""))


def _comments(node: Any, lines: list[str], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.start_mark.line > key.start_mark.line:
            yield from _comments(value, lines, f"{name}.")
            continue
        rest = lines[value.end_mark.line][value.end_mark.column :] if value.end_mark.line < len(lines) else ""
        yield name, rest.partition("#")[2].strip()


def _choices() -> str:
    """Every group with its choices."""
    lines = (f"{group}: {', '.join(choices_of(group))}" for group in GROUPS)
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)


def _keys(*, _root_: DictConfig) -> str:
    """Every key with its value in this config and its comment, section by section."""
    known = comments(CONF / "config.yaml")
    chosen = _root_.hydra.runtime.choices
    for group in (group for group in GROUPS if group not in BUNDLES):
        for name in ("default", str(chosen.get(group))):  # smoke and overfit inherit from default
            path = CONF / group / f"{name}.yaml"
            if path.is_file():
                known |= {f"{group}.{key}": text for key, text in comments(path).items() if text or name == "default"}
    config: Any = OmegaConf.to_container(_root_)
    lines = _lines({key: value for key, value in config.items() if key != "hydra"}, known, "")
    return hide("\n".join(lines)).replace("$", "$$")  # Hydra fills in a template with it


def _lines(values: dict[str, Any], known: dict[str, str], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and not prefix:
            yield f"{name}:"
            yield from _lines(value, known, f"{name}.")
            continue
        line = f"{'  ' if prefix else ''}{key}: {value if _is_open(value) else format_value(value)}"
        words = textwrap.wrap(known.get(name, ""), WIDTH - COMMENT - 2)
        if not words or len(line) >= COMMENT:
            yield line
            line = ""
        for text in words:
            yield f"{line:<{COMMENT}}# {text}"
            line = ""


def _is_open(value: Any) -> bool:
    """Whether a value is still to be given or resolved."""
    return isinstance(value, str) and (value == "???" or "${" in value)
