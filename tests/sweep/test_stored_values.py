"""sweep_4bcc55e.json holds `record`, the sweep.json that 4bcc55e wrote, and `trials`, the values of its first trials.

Its command line: training=smoke model.widths=[8],[16,8] training.early_stopping_patience=null,3
dataset.name='a b','c,d','123' seed=shuffle(range(3)) model.dropout=range(0.1,0.4,0.1) sweep.max_trials=8
sweep.algorithm=random; in sweep.space the optimizer with a quoted name, and two conditions.
"""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from light_trials import light, study_of
from mlflow.entities import Metric
from test_kills import Silent

from mnist_exp.config.recorded import ExecutionWhitelist
from mnist_exp.sweep.executors.base import Inline
from mnist_exp.sweep.samplers import create_sampler
from mnist_exp.sweep.search import search
from mnist_exp.sweep.stored_values import read_stored_space
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial import Proposal
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.sweep_run import SweepRun

OLD = json.loads(Path(__file__).with_name("sweep_4bcc55e.json").read_text())
TOKENS: list[dict[str, Any]] = OLD["trials"]
CONDITION = "dataset.name='a b','123'/model.batch_norm"


@pytest.fixture
def study() -> Study:
    return Study.from_record(OLD["record"], ExecutionWhitelist())


def test_the_tokens_of_an_old_space_become_plain_values_once(study: Study) -> None:
    assert "format" not in OLD["record"]
    assert {p.name: repr(p.values.values) for p in study.space.parameters if p.key != "optimizer.learning_rate"} == {
        "optimizer": "('adam', 'adadelta')",
        "model.widths": "([8], [16, 8])",
        "training.early_stopping_patience": "(None, 3)",
        "dataset.name": "('a b', 'c,d', '123')",
        "seed": "(1, 2, 0)",
        "model.dropout": "[0.1, 0.2, 0.3]",
        CONDITION: "(True, False)",
    }
    assert "optimizer=adadelta/optimizer.learning_rate" in {parameter.name for parameter in study.space.parameters}


def test_the_values_of_old_trials_are_told_by_the_place_of_their_tokens(study: Study) -> None:
    assert TOKENS[0] == {
        "optimizer": "'adadelta'", "model.widths": "[8]", "training.early_stopping_patience": "null",
        "dataset.name": "'123'", "seed": "2", "model.dropout": 0.1, CONDITION: "true",
        "optimizer='adadelta'/optimizer.learning_rate": TOKENS[0]["optimizer='adadelta'/optimizer.learning_rate"],
    }  # fmt: skip
    assert study.stored.decode(TOKENS[0]) == {
        "optimizer": "adadelta", "model.widths": [8], "training.early_stopping_patience": None,
        "dataset.name": "123", "seed": 2, "model.dropout": 0.1, CONDITION: True,
        "optimizer=adadelta/optimizer.learning_rate": TOKENS[0]["optimizer='adadelta'/optimizer.learning_rate"],
    }  # fmt: skip
    for tokens in TOKENS:
        assert study.stored.encode(study.stored.decode(tokens)) == tokens


def test_an_old_sweep_has_its_configs_and_proposals(study: Study) -> None:
    sampler = create_sampler(study)
    for tokens in TOKENS:
        proposal = sampler.ask()
        assert isinstance(proposal, Proposal)
        assert proposal.values == study.stored.decode(tokens)
        config = study.configs.of(proposal.values)
        assert config.choices["optimizer"] == proposal.values["optimizer"]
        assert config.values["dataset"]["name"] == proposal.values["dataset.name"]
        patience = proposal.values["training.early_stopping_patience"]
        assert config.values["training"]["early_stopping_patience"] == patience


def test_a_resumed_old_sweep_goes_on_and_writes_tokens(tracking) -> None:
    """Two trials ended, the third was running when the sweep was killed."""
    store = connect(tracking)
    record = SweepRun.create(store, "sweeps", "old", OLD["record"])
    for number, tokens in enumerate(TOKENS[:3]):
        run_id = record.create_trial(number, f"old-{number}", tokens, None, "hash")
        if number < 2:
            store.client.log_batch(run_id, [Metric("score", 0.5, 0, 0)])
            store.client.set_terminated(run_id)
    record.end("KILLED")
    record = SweepRun.resume(store, "latest")
    study = Study.from_record(record.record, record.store.whitelist)
    record.take_over()
    engine = search(study, record, tracking, Inline(), Silent(), light)
    assert engine.stop_reason == "done"
    assert [trial.values for trial in record.trials()] == TOKENS
    assert [trial.values for trial in study.trials(record)] == list(map(study.stored.decode, TOKENS))
    again = create_sampler(study)
    again.restore(study.trials(record))  # and may be resumed once more
    assert len(again.trials) == len(TOKENS)


def test_a_sweep_of_today_keeps_plain_values_in_its_record_and_tags(tracking) -> None:
    overrides = ["model.widths=[8],[16,8]", "export=null,m.h5", "dataset.name='123','my data (1)'", "training.epochs=1"]
    study = study_of("grid", "model.dropout=0.0", "seed=0", *overrides)
    record = SweepRun.create(connect(tracking), "sweeps", "new", study.to_record())
    search(study, record, tracking, Inline(), Silent(), light)
    record.end("FINISHED")
    frozen = SweepRun.resume(record.store, record.id).record
    assert frozen["format"] == 2
    assert [p["values"]["values"] for p in frozen["space"]["parameters"]] == [
        [[8], [16, 8]], [None, "m.h5"], ["123", "my data (1)"],
    ]  # fmt: skip
    stored = [json.loads(trial.tags["values"]) for trial in record.trials()]
    assert stored == list(study.space.combinations())
    assert stored[0] == {"model.widths": [8], "export": None, "dataset.name": "123"}
    space, values = read_stored_space(frozen)
    assert list(islice(space.combinations(), 3)) == list(map(values.decode, stored[:3]))
