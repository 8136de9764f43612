"""python -m mnist_exp completion bash: prints what makes the Tab key complete mnist-exp in Bash, zsh or fish.

Bash: eval "$(mnist-exp completion bash)" in ~/.bashrc. zsh: the same with zsh in ~/.zshrc. fish: mnist-exp completion
fish | source in ~/.config/fish/config.fish.
"""

import importlib
import types
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from click.shell_completion import ShellComplete

from mnist_exp.commands import COMMANDS
from mnist_exp.config.check import field_of, resolve
from mnist_exp.config.compose import GROUPS, choices_of, compose, flatten
from mnist_exp.config.run_config import format_value
from mnist_exp.errors import UserError

PROGRAM = "mnist-exp"
FLAGS = ("-m", "--multirun", "--help", "--cfg", "--config-dir", "--config-name", "--version")
SCRIPTS = {
    "bash": """_mnist_exp() {
    local IFS=$'\\n'
    COMPREPLY=($(mnist-exp completion --line "${COMP_LINE:0:$COMP_POINT}" 2>/dev/null))
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *[=.] ]]; then COMPREPLY[0]+=" "; fi
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _mnist_exp mnist-exp""",
    "zsh": """autoload -Uz compinit && (( $+functions[compdef] )) || compinit
_mnist_exp() {
    local -a found
    found=("${(@f)$(mnist-exp completion --line "$LBUFFER" 2>/dev/null)}")
    compadd -Q -S '' -- ${found:#}
}
compdef _mnist_exp mnist-exp""",
    "fish": """function _mnist_exp
    mnist-exp completion --line (commandline -cp) 2>/dev/null
end
complete -c mnist-exp -f -a '(_mnist_exp)'""",
}


def complete(line: str) -> list[str]:
    """Returns what the last word of a command line may be. line: from the name of the program to the cursor."""
    *before, last = line.split(" ") if line.strip() else [PROGRAM, ""]
    words = [word for word in before[1:] if word]
    if words and words[0] in COMMANDS:
        command = importlib.import_module(f"mnist_exp.commands.{words[0]}").command
        found = ShellComplete(command, {}, words[0], "").get_completions(words[1:], last)
        return sorted(item.value for item in found if item.type == "plain")
    possible = [*_overrides(words, last), *(FLAGS if last.startswith("-") else ())]
    if not words:
        possible += COMMANDS
    return sorted({word for word in possible if word.startswith(last)})


def _overrides(words: Sequence[str], last: str) -> Iterator[str]:
    """Yields overrides that may follow others: groups and their choices, keys and, where they are few, their values."""
    key, equals, _ = last.partition("=")
    if equals and key in GROUPS:
        yield from (f"{key}={choice}" for choice in choices_of(key))
        return
    values = _values_after(words)
    if equals:
        yield from (f"{key}={value}" for value in _possible(values, key))
        return
    yield from (f"{group}=" for group in GROUPS)
    for name in dict(flatten(values)):
        section, dot, _ = name.partition(".")
        if "." in last or not dot:
            yield f"{name}="
        else:
            yield f"{section}."


def _values_after(words: Sequence[str]) -> dict[str, Any]:
    """The values of the config of these overrides, without those that cannot be used yet."""
    given = [word for word in words if "=" in word and not word.startswith("-")]
    with suppress(UserError):
        return resolve(compose(given))
    chosen: list[str] = []
    for word in given:
        with suppress(UserError):
            resolve(compose([*chosen, word]))
            chosen.append(word)
    return resolve(compose(chosen))


def _possible(values: dict[str, Any], key: str) -> list[str]:
    """The values that a key may have if they are few, else the one that it has."""
    with suppress(Exception):  # of code of the user's own, which is imported for its signature
        if info := field_of(values, key):
            found = list(dict.fromkeys(_listed(info.annotation)))
            if found:
                return [format_value(value) for value in found]
    now = dict(flatten(values)).get(key)
    return [] if now is None else [format_value(now)]


def _listed(kind: Any) -> Iterator[Any]:
    """The values that a type lists: those of a Literal, true and false, null."""
    origin = get_origin(kind)
    if origin is Literal:
        yield from get_args(kind)
    elif kind is bool:
        yield from (True, False)
    elif kind is types.NoneType:
        yield None
    elif origin in (Union, types.UnionType):
        parts = [list(_listed(part)) for part in get_args(kind)]
        if any(part not in ([], [None]) for part in parts):
            yield from (value for part in parts for value in part)
    elif origin is Annotated:
        yield from _listed(get_args(kind)[0])


@click.command(help=__doc__)
@click.argument("shell", type=click.Choice(list(SCRIPTS)), required=False)
@click.option("--line", hidden=True, help="Prints what the last word of this line may be.")
def command(shell: str | None, line: str | None) -> None:
    """Prints a script, or completions, one per line."""
    if line is not None:
        click.echo("\n".join(complete(line)))
    elif shell is None:
        raise click.UsageError("Missing argument: bash, zsh or fish.")
    else:
        click.echo(SCRIPTS[shell])
