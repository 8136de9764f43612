"""sweep.plan=true: lists what would run and starts nothing."""

import statistics
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rich.table import Table

from mnist_exp.config.schema import Tracking, Training
from mnist_exp.data.load import load_splits
from mnist_exp.sweep.display import SweepDisplay, format_values
from mnist_exp.sweep.study import Study
from mnist_exp.terminal import format_duration
from mnist_exp.tracking.store import connect, local_database, locate
from mnist_exp.tracking.sweep_run import seconds_per_epoch, trained_before

SHOWN = 20  # trials that are listed
LOOKED_AT = 1000  # combinations of a grid that are looked for in the store


def plan(study: Study, tracking: Tracking, workers: int, display: SweepDisplay) -> None:
    """Lists the first trials with their parameters, how many there would be, and how long they would take."""
    count = total(study)
    display.begin_sweep(study, count, workers, lambda run_id: [])
    chosen = list(islice(_values(study), LOOKED_AT))
    configs = [study.configs.of(values) for values in chosen]
    splits = load_splits(study.configs.first())
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("parameters", justify="right")
    table.add_column("values")
    for values, config in zip(chosen[:SHOWN], configs, strict=False):
        model = config.build("model", image_shape=splits.image_shape, classes=len(splits.class_names))
        table.add_row(f"{model.count_params():,}", format_values(values))
    display.console.print(table)
    if study.algorithm != "grid":
        display.say("", "the first proposals, before any score is known")
    elif count is not None and count > SHOWN:
        display.say("", f"and {count - SHOWN} more")
    database = local_database(locate(tracking.uri, Path(tracking.folder).resolve()))
    if database and not database.exists():  # a plan creates no store
        display.say("time", "unknown: the store holds no run yet")
        return
    store = connect(tracking)
    if study.algorithm == "grid":
        done = trained_before(store, (config.hash for config in configs))
        display.say("before", f"{len(done)} of them were trained in an earlier sweep of this store")
    choices = {base.choices["model"] for base in study.configs.bases.values()}
    known = [seconds for model in choices for seconds in seconds_per_epoch(store, study.digest, model)]
    if not known or count is None:
        display.say("time", "unknown: the store holds no run of these models on this data")
        return
    epochs = sum(config.settings(Training).epochs for config in configs) / len(configs)
    seconds = statistics.median(known) * epochs * count * study.settings.executions / workers
    trained = f"{len(known)} runs of these models on this data"
    display.say("time", f"about {format_duration(seconds)} of training, by {trained}")


def _values(study: Study) -> Iterator[Any]:
    """Returns the values of the first trials."""
    if study.algorithm == "grid":
        yield from study.space.combinations()
        return
    from mnist_exp.sweep.samplers import create_sampler
    from mnist_exp.sweep.trial import Proposal

    sampler = create_sampler(study)
    for _ in range(min(SHOWN // 2, total(study) or SHOWN)):
        asked = sampler.ask()
        if not isinstance(asked, Proposal):
            return
        yield asked.values


def total(study: Study) -> int | None:
    """Returns the number of trials; None if only sweep.timeout ends the sweep."""
    limits = (size(study), study.settings.max_trials)
    return min((limit for limit in limits if limit is not None), default=None)


def size(study: Study) -> int | None:
    """Returns the number of trials without sweep.max_trials; None if they have no end."""
    if study.algorithm == "hyperband":
        from mnist_exp.sweep.samplers import create_sampler

        return create_sampler(study).total
    return study.space.size if study.space.finite else None
