"""Shows what would be removed from a store, with its size, asks, and removes it."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from mnist_exp.commands.options import print_json
from mnist_exp.errors import ConfigError, Problem, TrackingError
from mnist_exp.secrets import hide
from mnist_exp.tracking.delete import Protection, Removal, remove, vacuum
from mnist_exp.tracking.store import Store, local_database
from mnist_exp.tracking.stored_run import StoredRun

UNITS = ("bytes", "kB", "MB", "GB", "TB")
SHAPE = "an object: removed (an array: kind, id, name, place, bytes), bytes, dry_run."


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


def check_removable(
    protection: Protection, runs: Sequence[StoredRun], resumable: bool, what: str = "remove it with --resumable"
) -> None:
    """Raises TrackingError with every run that must stay."""
    together = {run.id for run in runs}
    reasons = [(run, protection.reason(run, together, resumable)) for run in runs]
    problems = [
        Problem(run.label, f"cannot be removed, because it {reason}", remedy=what if "resumed" in reason else "")
        for run, reason in reasons
        if reason
    ]
    if problems:
        raise TrackingError(problems)


def carry_out(store: Store, removals: Iterable[Removal], *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Names what goes and its bytes, asks unless `yes`, and removes it. as_json: prints it as JSON; needs `yes`."""
    chosen = list(removals)
    whole = sum(one.size for one in chosen)
    if as_json:
        if not (dry_run or yes):
            raise ConfigError(Problem("--json", "needs --dry-run or --yes, because it asks nothing"))
        if not dry_run:
            remove(store, chosen)
        listed = [
            {"kind": one.kind, "id": one.id, "name": one.name, "place": one.place, "bytes": one.size} for one in chosen
        ]
        print_json({"removed": listed, "bytes": whole, "dry_run": dry_run})
        return
    if not chosen:
        click.echo("nothing to remove")
        return
    for one in sorted(chosen, key=lambda one: -one.size)[:20]:
        click.echo(f"{format_bytes(one.size):>10}  {one.kind:<5}  {one.name}")
    if len(chosen) > 20:
        click.echo(f"{'':>10}  and {len(chosen) - 20} more")
    counts = Counter(one.kind for one in chosen)
    words = {"run": "run", "model": "model", "files": "folder without a run"}
    shown = ", ".join(f"{count} {words[kind]}{'s' * (count > 1)}" for kind, count in counts.items())
    click.echo(f"{format_bytes(whole):>10}  in all: {shown.replace('folder without a runs', 'folders without a run')}")
    if dry_run:
        click.echo("nothing was removed, because of --dry-run")
        return
    if not yes and not sys.stdin.isatty():
        raise ConfigError(Problem("--yes", "must be given if nobody can be asked, or --dry-run"))
    if not yes and not click.confirm("Remove them for good?"):
        raise SystemExit(1)
    remove(store, chosen)
    click.echo(f"removed {format_bytes(whole)}")
    if local_database(store.uri) is None:
        click.echo("the rows of the runs are marked as deleted; on the server, its administrator removes them with:")
        click.echo(f"  MLFLOW_TRACKING_URI={hide(store.uri)} mlflow gc --backend-store-uri DATABASE")


def shrink(store: Store) -> None:
    """Gives the free pages of a local database back to the disk, and says how much that was."""
    if (freed := vacuum(store)) > 0:
        click.echo(f"the database is smaller by {format_bytes(freed)}")
