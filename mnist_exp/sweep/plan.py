"""sweep.plan=true: lists what would run and starts nothing."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rich.table import Table

from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Tracking, Training
from mnist_exp.data.load import load_splits
from mnist_exp.data.splits import Splits
from mnist_exp.sweep.display import SweepDisplay, format_values
from mnist_exp.sweep.feed import read_first
from mnist_exp.sweep.forecast import count_programs, predict, probe, ratio_of_survivors, seconds_of, work_of
from mnist_exp.sweep.study import Study
from mnist_exp.terminal import format_duration
from mnist_exp.tracking.costs import Cost, read_costs
from mnist_exp.tracking.store import Store, connect, local_database, locate
from mnist_exp.tracking.sweep_run import trained_before

SHOWN = 20  # trials that are listed
LOOKED_AT = 1000  # combinations of a grid that are looked for in the store


@dataclass(frozen=True)
class Planned:
    """One of the first trials."""

    config: RunConfig
    parameters: int
    batch_size: int


def plan(study: Study, tracking: Tracking, workers: int, display: SweepDisplay) -> None:
    """Lists the first trials with their parameters, how many there would be, and how long they would take."""
    database = local_database(locate(tracking.uri, Path(tracking.folder).resolve()))
    store = None if database and not database.exists() else connect(tracking)  # a plan creates none
    study, count = replace(study, queue=read_first(study, store)), total(study)
    display.begin_sweep(study, count, workers, lambda run_id: [])
    if study.why:
        display.say("pruner", study.why)
    chosen = list(islice(_values(study), LOOKED_AT))
    configs = [study.configs.of(values) for values in chosen]
    splits = load_splits(study.configs.first())
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("parameters", justify="right")
    table.add_column("values")
    planned = []
    for values, config in zip(chosen[:SHOWN], configs, strict=False):
        model = config.build("model", image_shape=splits.image_shape, classes=len(splits.class_names))
        planned.append(Planned(config, model.count_params(), config.settings(Training).batch_size))
        table.add_row(f"{planned[-1].parameters:,}", format_values(values))
    display.console.print(table)
    if study.algorithm != "grid":
        display.say("", "the first proposals, before any score is known")
    elif count is not None and count > SHOWN:
        display.say("", f"and {count - SHOWN} more")
    if store is None:
        _say_time(study, [], planned, splits, workers, display)
        return
    if study.algorithm == "grid":
        done = trained_before(store, (config.hash for config in configs))
        display.say("before", f"{len(done)} of them were trained in an earlier sweep of this store")
    _say_time(study, _known(study, store), planned, splits, workers, display)


def _say_time(
    study: Study, known: Sequence[Cost], planned: Sequence[Planned], splits: Splits, workers: int, display: SweepDisplay
) -> None:
    """Says how long the trials will take, from known ones or from short trainings of some of them."""
    count = total(study) or study.settings.max_epochs  # a trial takes one epoch at least
    assert count is not None  # else the sweep would have no end
    workers = workers or 1
    compiling, why = 0.0, f"{len(known)} runs of these models on this data"
    if not known:
        display.say("probe", "training some of them for a moment: the store holds no run of these models on this data")
        by_size = sorted(planned, key=lambda one: one.parameters)
        chosen = {one.parameters: one.config for one in (by_size[0], by_size[len(by_size) // 2], by_size[-1])}
        probes = [probe(config, splits) for config in chosen.values()]
        known = [one.cost for one in probes]
        alone = math.ceil(count / workers)  # trials of one worker
        compiling = count_programs(study.space, alone) * statistics.fmean(one.compiling for one in probes)
        *smaller, largest = (f"{size:,}" for size in chosen)
        why = f"short trainings of {' and '.join(filter(None, (', '.join(smaller), largest)))} parameters"
    costs = [predict(known, one.parameters, one.batch_size) for one in planned]
    if study.settings.asha:
        ratio = ratio_of_survivors(known)
        costs = [replace(cost, epoch=cost.epoch * ratio) for cost in costs]
    work = work_of(study, count)
    seconds = seconds_of(work, costs, study.settings.executions, workers) + compiling
    at_most = "at most " * study.settings.median
    display.say("work", str(work))
    display.say("time", f"{at_most}about {format_duration(seconds)} for the trials, by {why}")


def _known(study: Study, store: Store) -> list[Cost]:
    choices = {base.choices["model"] for base in study.configs.bases.values()}
    return [cost for model in sorted(choices) for cost in read_costs(store, study.digest, model)]


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


def total(study: Study, outside: int = 0) -> int | None:
    """Returns the number of trials; None if only sweep.max_epochs or sweep.timeout ends the sweep.

    outside: of the trials that lie outside of a space that was changed.
    """
    combinations = size(study)
    limits = (None if combinations is None else combinations + outside, study.settings.max_trials)
    return min((limit for limit in limits if limit is not None), default=None)


def size(study: Study) -> int | None:
    """Returns the number of trials without sweep.max_trials; None if they have no end."""
    if study.algorithm == "hyperband":
        from mnist_exp.sweep.samplers import create_sampler

        return create_sampler(study).total
    return study.space.size if study.space.finite else None
