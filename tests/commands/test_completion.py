"""What the Tab key offers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_exp.commands.completion import SCRIPTS, complete


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("mnist-exp model=", ["model=cnn", "model=custom", "model=mlp", "model=pretrained", "model=resnet"]),
        ("mnist-exp -m optimizer=ada", ["optimizer=adadelta", "optimizer=adam", "optimizer=adamw"]),
        ("mnist-exp comp", ["compare", "completion"]),
        ("mnist-exp training.wei", ["training.weights="]),
        ("mnist-exp trai", ["training.", "training="]),
        ("mnist-exp training.weights=", ["training.weights=best", "training.weights=last"]),
        ("mnist-exp training.deterministic=", ["training.deterministic=false", "training.deterministic=true"]),
        ("mnist-exp sweep.sampler=r", ["sweep.sampler=random"]),
        ("mnist-exp seed=", ["seed=0"]),
        ("mnist-exp model=cnn model.ker", ["model.kernel="]),
        ("mnist-exp model.ker", []),
        ("mnist-exp model=cnn model.padding=", ["model.padding=same", "model.padding=valid"]),
        ("mnist-exp model=wrong seed=1 model.wid", ["model.widths="]),
        ("mnist-exp --mul", ["--multirun"]),
        ("mnist-exp compare --la", ["--latex"]),
        ("mnist-exp export x --format ", ["h5", "keras", "savedmodel"]),
        ("mnist-exp optimizer.schedule=c", ["optimizer.schedule=constant", "optimizer.schedule=cosine"]),
        ("mnist-exp nothing", []),
    ],
)
def test_words_that_may_follow(line: str, found: list[str]) -> None:
    assert complete(line) == found


def test_an_empty_line_offers_commands_and_keys() -> None:
    found = complete("mnist-exp ")
    assert {"compare", "model=", "training.", "seed="} <= set(found)


def test_choices_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nseed: 3\n")
    assert "experiment=mine" in complete("mnist-exp experiment=m")


def call(shell: list[str], folder: Path) -> str:
    """Runs a shell in which mnist-exp is this Python's."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "mnist-exp").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mnist_exp "$@"\n')
    (programs / "mnist-exp").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(shell, cwd=folder, capture_output=True, text=True, timeout=60, env=environment, check=True)
    return done.stdout


def test_bash_completes(tmp_path: Path) -> None:
    line = "mnist-exp model="
    script = f"""eval "$(mnist-exp completion bash)"
    COMP_LINE='{line}' COMP_POINT={len(line)} COMP_CWORD=1; _mnist_exp; printf '%s\\n' "${{COMPREPLY[@]}}"
    COMP_LINE='mnist-exp model=cn' COMP_POINT=18; _mnist_exp; printf '[%s]\\n' "${{COMPREPLY[@]}}"
    complete -p mnist-exp"""
    found = call(["bash", "-c", script], tmp_path).splitlines()
    assert found[:5] == ["model=cnn", "model=custom", "model=mlp", "model=pretrained", "model=resnet"]
    assert found[5] == "[model=cnn ]"
    assert found[6] == "complete -o default -o nospace -F _mnist_exp mnist-exp"


@pytest.mark.servers
def test_fish_completes(tmp_path: Path) -> None:
    script = "mnist-exp completion fish | source; complete -C 'mnist-exp model=c'"
    assert call(["fish", "-c", script], tmp_path).split() == ["model=cnn", "model=custom"]


@pytest.mark.servers
def test_zsh_completes(tmp_path: Path) -> None:
    """compadd works in a completion only, so it is replaced by a function that prints."""
    script = """eval "$(mnist-exp completion zsh)"; compadd() { print -l -- "${@[5,-1]}" }
    LBUFFER='mnist-exp model=c'; _mnist_exp"""
    assert call(["zsh", "-f", "-c", script], tmp_path).split() == ["model=cnn", "model=custom"]


def test_every_shell_has_a_script() -> None:
    assert list(SCRIPTS) == ["bash", "zsh", "fish"]
