"""A store that somebody else has written: no command runs its code, and none reads this machine for it."""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from mnist_exp.config.recorded import ExecutionWhitelist, conf_targets
from mnist_exp.errors import ConfigError
from mnist_exp.tracking.sqlite import DATABASE, move_store, uri_of

SMALL = ("dataset=digits", "dataset.size=8", "model=mlp", "model.widths=[16]", "training.epochs=1")
PROGRAM = "mnist_exp.tracking.environment._output"  # runs the program that its arguments name
REFUSED = "because this config is read from a store"
SECTIONS = ("dataset", "model", "optimizer")


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory, main_in: Callable) -> Path:
    """A folder with one finished run and one finished sweep of two trials."""
    folder = tmp_path_factory.mktemp("honest")
    for arguments in (
        (*SMALL, "name=victim"),
        ("-m", *SMALL, "optimizer.learning_rate=0.1,0.01", "sweep.name=victims"),
    ):
        status, out, err = main_in(folder, *arguments)
        assert status == 0, out + err
    return folder


@pytest.fixture
def home(honest: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    shutil.copytree(honest, folder)
    move_store(honest / "mlruns", folder / "mlruns")
    return folder


@pytest.fixture
def client(home: Path) -> MlflowClient:
    return MlflowClient(uri_of(home / "mlruns" / DATABASE))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that an attack writes."""
    return tmp_path / "marker"


def write_artifact(client: MlflowClient, run: Any, name: str, text: str) -> None:
    """Writes where the run has its files; MLflow remembers the place of a run for the whole process."""
    Path(run.info.artifact_uri.removeprefix("file://"), name).write_text(text)


def run_named(client: MlflowClient, name: str) -> Any:
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, f"attributes.run_name = '{name}'")[0]


def write_config(client: MlflowClient, values: dict[str, Any]) -> None:
    run = run_named(client, "victim")
    write_artifact(client, run, "config.yaml", yaml.safe_dump(values))


def read_config(client: MlflowClient) -> dict[str, Any]:
    path = client.download_artifacts(run_named(client, "victim").info.run_id, "config.yaml")
    return dict(yaml.safe_load(Path(path).read_text()))


def touch(marker: Path) -> dict[str, Any]:
    return {"_target_": PROGRAM, "_args_": ["touch", str(marker)]}


def in_a_section(section: str) -> Callable[[dict[str, Any], Path], None]:
    def change(config: dict[str, Any], marker: Path) -> None:
        config[section] = {**config[section], **touch(marker)}

    return change


def in_a_dict(config: dict[str, Any], marker: Path) -> None:
    config["model"]["augmentation"] = {"deep": {"deeper": touch(marker)}}


def in_a_list(config: dict[str, Any], marker: Path) -> None:
    config["model"]["widths"] = [16, [touch(marker)]]


def in_a_partial(config: dict[str, Any], marker: Path) -> None:
    config["dataset"]["size"] = {**touch(marker), "_partial_": True}


def in_the_arguments(config: dict[str, Any], marker: Path) -> None:
    config["dataset"]["_args_"] = [touch(marker)]


def in_the_training(config: dict[str, Any], marker: Path) -> None:
    config["training"]["batch_size"] = touch(marker)


ATTACKS = [*map(in_a_section, SECTIONS), in_a_dict, in_a_list, in_a_partial, in_the_arguments, in_the_training]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_target_of_a_recorded_run_is_called(run_main, client, marker, home, attack) -> None:
    config = read_config(client)
    attack(config, marker)
    write_config(client, config)
    interrupted(client, home, config)
    for arguments in (("export", "victim"), ("reproduce", "victim"), ("training.resume=victim-killed",)):
        status, out, err = run_main(*arguments)
        assert status == 1, (arguments, out)
        assert REFUSED in err
        assert PROGRAM in err
        assert "Traceback" not in err
        assert not marker.exists(), arguments


def interrupted(client: MlflowClient, home: Path, config: dict[str, Any]) -> None:
    """A run that could be resumed, with this config."""
    victim = run_named(client, "victim")
    folder = home / "mlruns" / "running" / "killed"
    for name in ("artifacts", "checkpoints"):
        (folder / name).mkdir(parents=True)
    (folder / "checkpoints" / "state.json").write_text('{"epochs": [], "stopped": false, "random_states": []}')
    (folder / "artifacts" / "config.yaml").write_text(yaml.safe_dump(config))
    run = client.create_run(
        victim.info.experiment_id,
        tags={"kind": "run", "folder": str(folder), "host": "here", "mlflow.runName": "victim-killed"},
    )
    for key, value in victim.data.params.items():
        client.log_param(run.info.run_id, key, value)
    client.set_terminated(run.info.run_id, "KILLED")


def test_the_attack_is_real_and_the_error_says_what_to_type(run_main, client, marker) -> None:
    config = read_config(client)
    in_a_section("dataset")(config, marker)
    write_config(client, config)
    _, _, err = run_main("export", "victim")
    option = f"--execution-whitelist {PROGRAM}"
    assert f"dataset._target_ must be named by conf/ or be a function of the current folder, {REFUSED}" in err
    assert f"but got '{PROGRAM}'; if you trust it, add {option}" in err
    config = read_config(client)
    config["dataset"] = {"name": "digits", **touch(marker)}
    for key in ("validation", "method", "test", "limit", "seed"):
        config["dataset"][key] = read_config(client)["dataset"][key]
    write_config(client, config)
    run_main("export", "victim", *option.split())
    assert marker.exists()


@pytest.mark.parametrize("text", ["${oc.env:CANARY}", "a${oc.env:CANARY}b", "${seed}", "${oc.decode:'1'}", "\\${seed}"])
def test_nothing_of_a_recorded_run_is_resolved(run_main, client, monkeypatch, text) -> None:
    monkeypatch.setenv("CANARY", "of-this-machine")
    config = read_config(client)
    config["dataset"]["name"] = text
    write_config(client, config)
    for command in ("export", "reproduce"):
        status, out, err = run_main(command, "victim")
        assert status == 1
        assert "dataset.name must be a plain value in a recorded config" in err
        assert "of-this-machine" not in out + err


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "mnist_exp.models.os.system",
        "mnist_exp.models.mlp.__globals__",
        "mnist_exp.tracking.environment._output",
        "mnist_exp.data.digits.__call__",
        "mnist_exp.models.ｍlp",  # noqa: RUF001
        " mnist_exp.models.mlp",
        "mnist_exp..models.mlp",
        "net.os.system",
        "net.system",
        "net.alias.path.join",
        "net.build.__globals__",
        "net.__loader__.get_data",
        "net.build.__class__",
        "mlruns.artifacts.evil.run",
        "copied.artifacts.evil.run",
        "hydra_plugins.mnist_exp_sweeper.os.system",
        "",
        None,
        7,
        ["os", "system"],
    ],
)
def test_a_name_that_leads_elsewhere(target, home, monkeypatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    (home / "net.py").write_text("import os\nimport os as alias\nfrom os import system\n\ndef build():\n    pass\n")
    for store in ("mlruns", "copied"):
        (home / store / "artifacts").mkdir(parents=True, exist_ok=True)
        (home / store / "mlflow.db").touch()
        (home / store / "artifacts" / "evil.py").write_text("raise AssertionError('imported')\n")
    whitelist = ExecutionWhitelist()
    assert whitelist.allows("net.build")
    assert not whitelist.allows(target)
    with pytest.raises(ConfigError):
        whitelist.check({"model": {"_target_": target}})


def test_code_of_the_current_folder_and_entries_of_the_whitelist(home, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    monkeypatch.syspath_prepend(str(home))
    (home / "nets" / "deep").mkdir(parents=True)
    (home / "nets" / "deep" / "wide.py").write_text("class Net:\n    @classmethod\n    def build(cls):\n        pass\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.py").write_text("import os\n\ndef net():\n    pass\n")
    assert ExecutionWhitelist().allows("nets.deep.wide.Net")
    assert ExecutionWhitelist().allows("nets.deep.wide.Net.build")
    assert not ExecutionWhitelist().allows("other.net")
    assert ExecutionWhitelist(("other.net",)).allows("other.net")
    assert ExecutionWhitelist(("other.*",)).allows("other.net")
    assert not ExecutionWhitelist(("other.*",)).allows("other.os.system")
    assert not ExecutionWhitelist(stores=(home / "nets",)).allows("nets.deep.wide.Net")
    assert "mnist_exp.models.mlp" in conf_targets()
    assert all(ExecutionWhitelist().allows(name) for name in conf_targets())


def changed_sweep(client: MlflowClient, change: Callable[[dict[str, Any]], object]) -> None:
    run = run_named(client, "victims")
    path = Path(client.download_artifacts(run.info.run_id, "sweep.json"))
    record = json.loads(path.read_text())
    change(record)
    write_artifact(client, run, "sweep.json", json.dumps(record))
    client.set_tag(run.info.run_id, "tested", "nothing")


def base_of(record: dict[str, Any]) -> Any:
    return next(iter(record["configs"].values()))


SWEEPS: dict[str, tuple[Callable[[dict[str, Any], Path], object], str]] = {
    "target": (lambda r, m: base_of(r)["config"]["dataset"].update(touch(m)), REFUSED),
    "list": (lambda r, m: base_of(r)["config"]["model"].update(widths=[touch(m)]), REFUSED),
    "resolver": (lambda r, m: base_of(r)["config"]["dataset"].update(name="${oc.env:CANARY}"), "must be a plain value"),
    "nested": (lambda r, m: base_of(r)["config"].update(name="${oc.env:${name}}"), "must be a plain value"),
    "reference": (
        lambda r, m: base_of(r)["config"].update(name=PROGRAM, dataset={"_target_": "${name}", "name": "x"}),
        REFUSED,
    ),
    "space": (
        lambda r, m: r["space"]["parameters"].append(
            {"key": "dataset._target_", "values": {"values": [PROGRAM]}, "source": "", "when": None}
        ),
        REFUSED,
    ),
    "choice": (lambda r, m: base_of(r)["choices"].update(model="../../x"), "must be the name of a choice"),
    "group": (lambda r, m: base_of(r)["choices"].update({"hydra/launcher": "x"}), "must be the name of a choice"),
    "save_best": (lambda r, m: r["settings"].update(save_best=str(m)), "must be a YAML file below the current folder"),
    "parent": (lambda r, m: r["settings"].update(save_best="../x.yaml"), "must be a YAML file below the current"),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_nothing_of_a_recorded_sweep_is_called_resolved_or_written(run_main, client, marker, monkeypatch, name) -> None:
    monkeypatch.setenv("CANARY", "of-this-machine")
    change, refusal = SWEEPS[name]
    changed_sweep(client, lambda record: change(record, marker))
    status, out, err = run_main("-m", "sweep.resume=victims")
    assert status == 1, out
    assert refusal in err
    assert "Traceback" not in err
    assert "of-this-machine" not in out + err
    assert not marker.exists()


def test_a_trial_has_only_values_of_its_space(run_main, client, marker) -> None:
    changed_sweep(client, lambda record: None)
    trial = run_named(client, "victims-000")
    client.set_tag(trial.info.run_id, "values", json.dumps({"optimizer.learning_rate": touch(marker)}))
    status, _, err = run_main("-m", "sweep.resume=victims")
    assert status == 1
    assert "trial 0 must have values of the sweep's space" in err
    assert not marker.exists()


def test_the_name_of_a_sweep_adds_no_line_to_best_yaml(run_main, client, home) -> None:
    changed_sweep(client, lambda r: (r.update(name="x\nmodel: {}"), r["settings"].update(save_best="best.yaml")))
    status, out, err = run_main("-m", "sweep.resume=victims")
    assert status == 0, out + err
    assert not [line for line in (home / "best.yaml").read_text().splitlines() if line == "model: {}"]


@pytest.mark.parametrize("text", ["[1, 2", "- a", "!!python/object/apply:os.system [touch marker]", "7"])
def test_a_file_that_is_no_config(run_main, client, home, text) -> None:
    write_artifact(client, run_named(client, "victim"), "config.yaml", text)
    status, _, err = run_main("export", "victim")
    assert status == 1
    assert "is not the config of a run" in err
    assert "Traceback" not in err
    assert not (home / "marker").exists()


def test_the_description_of_a_model_chooses_no_other_way_to_read_it(run_main, client, home, marker) -> None:
    """MLflow would follow `data` to any folder, and read a SavedModel if the description says so."""
    for description in (home / "mlruns" / "artifacts").rglob("MLmodel"):
        values = yaml.safe_load(description.read_text())
        values["flavors"]["keras"] |= {"data": "../../../../evil", "save_exported_model": True, "code": "code"}
        description.write_text(yaml.safe_dump(values))
    status, out, err = run_main("export", "victim")
    assert status == 0, out + err


def test_a_pickled_or_lambda_model_is_not_read(run_main, home, marker) -> None:
    import keras

    written = str(marker)
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Lambda(lambda x: (open(written, "w"), x)[1], output_shape=(8, 8, 1))(inputs)  # noqa: SIM115
    outputs = keras.layers.Dense(10, "softmax")(keras.layers.Flatten()(hidden))
    model = keras.Model(inputs, outputs)
    for path in (home / "mlruns" / "artifacts").rglob("model.keras"):
        model.save(path)
    marker.unlink(missing_ok=True)  # building the model calls it
    for command in (("export", "victim"), ("predict", "--run", "victim", "x.png")):
        status, _, err = run_main(*command)
        assert status == 1
        assert "has a model that Keras refuses to load" in err
        assert re.search("(?i)unsafe|safe_mode", err)
        assert not marker.exists()


def test_predictions_are_not_unpickled(run_main, home, marker) -> None:
    import numpy as np

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {marker}",)

    for path in (home / "mlruns" / "artifacts").rglob("predictions.npz"):
        np.savez(path, val_labels=np.array([Evil()], dtype=object))
    status, out, err = run_main("compare", "victim")
    assert (status, out) == (1, "")
    assert "must have predictions that NumPy reads without pickle" in err
    assert not marker.exists()


def test_an_artifact_path_does_not_leave_the_store(run_main, home, client, marker) -> None:
    run = run_named(client, "victim")
    with closing(sqlite3.connect(home / "mlruns" / DATABASE)) as database:
        database.execute(
            "update runs set artifact_uri = artifact_uri || '/../../../..' where run_uuid = ?", (run.info.run_id,)
        )
        database.commit()
    for command in (("export", "victim"), ("reproduce", "victim"), ("compare", "victim")):
        status, out, err = run_main(*command)
        assert status in (0, 1), out + err
    assert not marker.exists()


def test_an_honest_store_works_as_before(run_main, home) -> None:
    (home / "mine.py").write_text(
        "import keras\n\ndef net(image_shape, classes, width=8):\n"
        "    inputs = keras.Input(image_shape)\n    x = keras.layers.Flatten()(inputs)\n"
        "    return keras.Model(inputs, keras.layers.Dense(classes, 'softmax')(keras.layers.Dense(width)(x)))\n"
    )
    custom = ("model=custom", "model._target_=mine.net", "+model.width=4")
    small = ("dataset=digits", "dataset.size=8", "training.epochs=1")
    status, out, err = run_main("-m", *small, *custom, "seed=0,1,2", "sweep.max_trials=1", "sweep.name=own")
    assert status == 0, out + err
    status, out, err = run_main("-m", "sweep.resume=own", "sweep.max_trials=2")
    assert status == 0, out + err
    status, out, err = run_main("export", "latest", "--to", "own.h5")
    assert status == 0, out + err
