import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_exp.config.compose import CONF, GROUPS, choices_of
from mnist_exp.config.help import comments
from mnist_exp.config.schema import SECTIONS

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shown(main_in: Callable, tmp_path_factory: pytest.TempPathFactory) -> str:
    status, out, err = main_in(tmp_path_factory.mktemp("help"), "--help")
    assert (status, err) == (0, "")
    return str(out)


def test_every_choice_is_shown(shown: str) -> None:
    words = set(shown.replace(",", " ").split())
    assert all(choice in words for group in GROUPS for choice in choices_of(group))


@pytest.mark.parametrize("section", [section for section in SECTIONS if section])
def test_every_key_is_shown_with_the_beginning_of_its_comment(section: str, shown: str) -> None:
    chosen = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "tracking": "mlflow", "executor": "inline"}
    lines = shown[shown.index(f"\n{section}:\n") + 1 :].splitlines()[1:]
    explained = comments(CONF / section / f"{chosen.get(section, 'default')}.yaml")
    for key, comment in ((key, comment) for key, comment in explained.items() if key != "_target_"):
        assert comment, key
        place = next(place for place, line in enumerate(lines) if line.startswith(f"  {key}: "))
        assert f"# {comment.split(' ')[0]}" in " ".join(lines[place : place + 2]), key


def test_the_values_are_those_of_the_command(run_main: Main) -> None:
    _, out, _ = run_main("model=cnn", "training.epochs=3", "--help")
    assert "  epochs: 3 " in out
    assert "  blocks: [[32],[64]] " in out
    assert "  widths:" not in out


def test_no_line_is_wider_than_a_terminal(shown: str) -> None:
    assert max(map(len, shown.splitlines())) <= 80


def test_comments_of_one_line_and_of_nested_keys(tmp_path: Path) -> None:
    text = "# not of a key\na: 1   # one\nb: 'x # y'\nc:\n  d: [1, 2]  # two\n  e: {f: 1}   # three\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert comments(tmp_path / "mine.yaml") == {"a": "one", "b": "", "c.d": "two", "c.e": "three"}


def test_of_the_working_folder_only_config_groups_are_read(home, run_main, monkeypatch) -> None:
    (home / "photos" / "cats").mkdir(parents=True)
    (home / "dataset" / "cats").mkdir(parents=True)  # images in a folder that has a group's name
    (home / "experiment").mkdir()
    (home / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 5\n")
    read: set[Path] = set()
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": [read.add(Path(path)), listdir(path)][1])
    status, out, err = run_main("--help")
    assert (status, err) == (0, "")
    assert "mine" in out.replace(",", " ").split()
    assert {path for path in read if path.is_relative_to(home)} == {home, home / "dataset", home / "experiment"}


def test_a_recipe_of_the_working_folder_is_a_choice(home, run_main) -> None:
    (home / "experiment").mkdir()
    (home / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 5\n")
    status, out, _ = run_main("experiment=mine", "--cfg", "job")
    assert status == 0
    assert "seed: 5" in out
