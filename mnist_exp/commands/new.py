"""python -m mnist_exp new my_project: writes a project with a net, a loss, a callback, an experiment and a study."""

import re
from pathlib import Path

import click

from mnist_exp.errors import ConfigError, Problem

TEMPLATE = Path(__file__).with_name("project")
PLACEHOLDER = "PROJECT"  # in its README
NAME = re.compile(r"[\w-]+", re.ASCII)
RENAMED = {"gitignore": ".gitignore"}  # files that Git would take for its own here


def write_project(folder: Path) -> list[Path]:
    """Writes the project into a new folder and returns its files. Raises ConfigError if there is such a folder."""
    if not NAME.fullmatch(folder.name):
        rule = "must have a name of letters, digits, _ and -"
        raise ConfigError(Problem("the folder of the project", rule, folder.name, "such as my_project"))
    if folder.exists():
        raise ConfigError(Problem(str(folder), "already exists", remedy="choose another name"))
    if not folder.parent.is_dir():
        raise ConfigError(Problem(str(folder.parent), "is not a folder", remedy="create it first"))
    written = []
    for source in sorted(path for path in TEMPLATE.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        inside = source.relative_to(TEMPLATE)
        target = folder / inside.with_name(RENAMED.get(inside.name, inside.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text(encoding="utf-8").replace(PLACEHOLDER, folder.name), encoding="utf-8")
        written.append(target)
    return written


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Prints the files, and what can be done with them."""
    for path in write_project(folder):
        click.echo(path)
    click.echo(f"\ncd {folder}")
    click.echo("python -m mnist_exp experiment=focal      # a run; README.md has more")
    click.echo("python -m unittest                        # the test of the project")
