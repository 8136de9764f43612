"""Shows what would be removed from a store, with its size, asks, and removes it."""

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from mnist_exp.commands.options import print_json
from mnist_exp.errors import ConfigError, Problem, TrackingError
from mnist_exp.secrets import hide
from mnist_exp.tracking.delete import remove, vacuum
from mnist_exp.tracking.protection import RESUMABLE, Protection, Removal, removals_of, size_of
from mnist_exp.tracking.sqlite import local_folder
from mnist_exp.tracking.store import Store, local_database

UNITS = ("bytes", "kB", "MB", "GB", "TB")
SHAPE = "an object: removed (an array: kind, id, name, place, bytes), bytes, left, dry_run."
LISTED = 20  # of what goes, the largest


def removal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --dry-run and --yes to a command."""
    command = click.option("--yes", is_flag=True, help="Remove without a question.")(command)
    return click.option("--dry-run", is_flag=True, help="Only say what would be removed.")(command)


def format_bytes(count: float) -> str:
    """Returns a number of bytes with three digits, such as 1.25 MB."""
    unit = 0
    while count >= 1000 and unit < len(UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.3g} {UNITS[unit]}"


def list_removals(protection: Protection, ids: Collection[str], resumable: bool) -> list[Removal]:
    """Returns what is removed with these runs, as far as they are there.

    resumable: whether runs that could be resumed may go. Raises TrackingError with every run that must stay.
    """
    runs = [protection.runs[one] for one in ids if one in protection.runs]
    reasons = [(run, protection.reason(run, ids, resumable)) for run in runs]
    remedies = {run.id: "remove it with --resumable" for run, reason in reasons if reason == RESUMABLE}
    problems = [
        Problem(run.label, f"cannot be removed, because it {reason}", remedy=remedies.get(run.id, ""))
        for run, reason in reasons
        if reason
    ]
    if problems:
        raise TrackingError(problems)
    return removals_of(protection.store, runs)


def carry_out(
    protection: Protection,
    find: Callable[[Protection], list[Removal]],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Names what goes and its bytes, asks unless `yes`, and removes it. as_json: prints it as JSON; needs `yes`.

    find: returns what may go. It is asked again after the answer, and what may not go any more stays. Raises what it
    raises.
    """
    if as_json and not (dry_run or yes):
        raise ConfigError(Problem("--json", "needs --dry-run or --yes, because it asks nothing"))
    store, chosen = protection.store, find(protection)
    sizes = {one: size_of(one) for one in chosen}
    if as_json:
        gone = chosen if dry_run else _check_and_remove(store, chosen, find)
        listed = [
            {"kind": one.kind, "id": one.id, "name": one.name, "place": one.place, "bytes": sizes[one]} for one in gone
        ]
        left = [*_outside(gone), *_left(chosen, set(gone))]
        print_json({"removed": listed, "bytes": sum(sizes[one] for one in gone), "left": left, "dry_run": dry_run})
        return
    if not chosen:
        click.echo("nothing to remove")
        return
    _show(sizes)
    if dry_run:
        click.echo("nothing was removed, because of --dry-run")
        return
    if not yes and not sys.stdin.isatty():
        raise ConfigError(Problem("--yes", "must be given if nobody can be asked, or --dry-run"))
    if not yes and not click.confirm("Remove them for good?"):
        raise SystemExit(1)
    gone = _check_and_remove(store, chosen, find)
    for sentence in _left(chosen, set(gone)):
        click.echo(sentence)
    click.echo(f"removed {format_bytes(sum(sizes[one] for one in gone))}")
    if local_database(store.uri) is None:
        click.echo("the rows of the runs are marked as deleted; on the server, its administrator removes them with:")
        click.echo(f"  MLFLOW_TRACKING_URI={hide(store.uri)} mlflow gc --backend-store-uri DATABASE")


def _check_and_remove(
    store: Store, chosen: Sequence[Removal], find: Callable[[Protection], list[Removal]]
) -> list[Removal]:
    """Removes what may still go, and returns it: until now, runs may have been started, cited or registered."""
    found = set(find(Protection.of(store)))
    gone = [one for one in chosen if one in found]
    remove(store, gone)
    return gone


def _show(sizes: Mapping[Removal, int]) -> None:
    """Prints what would go: the largest, and how much it is in all."""
    for one in sorted(sizes, key=lambda one: -sizes[one])[:LISTED]:
        click.echo(f"{format_bytes(sizes[one]):>10}  {one.kind:<5}  {one.name}")
    if len(sizes) > LISTED:
        click.echo(f"{'':>10}  and {len(sizes) - LISTED} more")
    counts = Counter(one.kind for one in sizes)
    words = {"run": "run", "model": "model", "files": "folder without a run"}
    shown = ", ".join(f"{count} {words[kind]}{'s' * (count > 1)}" for kind, count in counts.items())
    whole = format_bytes(sum(sizes.values()))
    click.echo(f"{whole:>10}  in all: {shown.replace('folder without a runs', 'folders without a run')}")
    for sentence in _outside(sizes):
        click.echo(sentence)


def _outside(removals: Iterable[Removal]) -> Iterator[str]:
    """Says where files lie that stay, because they are not those of the store."""
    outside = {one: str(local_folder(one.place) or hide(one.place)) for one in removals if one.outside}
    if outside:
        around = sorted({place.partition(f"/{one.id}")[0] for one, place in outside.items()})
        yield (
            f"the files of {len(outside)} of them lie outside of this store, in {', '.join(around)}, and stay; if the "
            "store was moved or copied, let it use its own files with: python -m mnist_exp store move OLD NEW"
        )


def _left(chosen: Sequence[Removal], gone: Collection[Removal]) -> Iterator[str]:
    """Says what was found and stays."""
    if left := [one for one in chosen if one not in gone]:
        names = ", ".join(f"{one.kind} {one.name}" for one in left[:LISTED])
        yield f"{len(left)} of them were left out, because they changed since they were found: {names}"


def shrink(store: Store) -> None:
    """Gives the free pages of a local database back to the disk, and says how much that was."""
    if (freed := vacuum(store)) > 0:
        click.echo(f"the database is smaller by {format_bytes(freed)}")
