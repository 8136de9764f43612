import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from spaces import parse

from mnist_exp.config.compose import compose
from mnist_exp.config.recorded import ExecutionWhitelist
from mnist_exp.config.run_config import BaseConfig, format_value
from mnist_exp.config.run_config import plain as to_dict
from mnist_exp.config.schema import SWEEP_SECTIONS
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.space import Values
from mnist_exp.sweep.trial_configs import TrialConfigs

FILE = "sweeps/mine.yaml"
RATES = {
    "optimizer": "adam, adadelta",
    "when": {
        "optimizer=adam": {"optimizer.learning_rate": "0.001, 0.1", "optimizer.beta_1": "0.8, 0.9"},
        "optimizer=adadelta": {"optimizer.learning_rate": "range(0.5, 2.0, 0.5)"},
    },
}
CUSTOM = ["model=custom", "model._target_=net_of_my_own.net"]
NET = """
from typing import Annotated
from annotated_types import Ge

def net(image_shape, classes, width: Annotated[int, Ge(1)], shape: list[int] | None = None, **more): ...
"""


def is_swept(override: str) -> bool:
    return OverridesParser.create().parse_override(override).is_sweep_override()


def composed(*overrides: str, space: Mapping[str, Any] | None = None) -> TrialConfigs:
    choices = compose([override for override in overrides if not is_swept(override)]).choices
    return TrialConfigs.compose(parse(space or {}, FILE, overrides, choices), overrides)


def refusal(*overrides: str, space: Mapping[str, Any] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        composed(*overrides, space=space)
    return str(refused.value).splitlines()


def plain(values: Mapping[str, Any]) -> str:
    """All of it, in an order of its own; 1, 1.0 and true stay apart."""
    return json.dumps(values, sort_keys=True)


def from_scratch(configs: TrialConfigs, values: Values, overrides: tuple[str, ...]) -> tuple[str, Mapping[str, str]]:
    """What one run with these values would be given."""
    assigned = configs.space.assigned(values)
    given = []
    for override in map(OverridesParser.create().parse_override, overrides):
        key = override.key_or_group
        taken = f"{override.get_key_element()}={format_value(assigned.pop(key))}" if key in assigned else None
        given.append(taken or str(override.input_line))
    found = compose([*given, *(f"{key}={format_value(value)}" for key, value in assigned.items())])
    return plain({k: v for k, v in to_dict(found.config).items() if k not in SWEEP_SECTIONS}), found.choices


@pytest.fixture
def my_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's own."""
    (tmp_path / "net_of_my_own.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("my_net")
@pytest.mark.parametrize(
    ("overrides", "space"),
    [
        (["seed=1,2"], {}),
        (["model.widths=[],[128],[128,64]", "training.early_stopping_patience=null,3"], {}),
        (["model.batch_norm=true,false", "model.dropout=0,0.5", "export=null,m.h5"], {}),
        (["model=mlp,cnn", "optimizer=adam,sgd", "seed=3", "training.epochs=range(1,3)"], {}),
        (["model=cnn", "model.blocks=choice([[16],[32]],[[32,64]])", "model.dense=[],[64]"], {}),
        (["training.class_weight={cat: 2.0},{dog: 3.0}"], {}),
        (["augmentation=none,digits"], {}),
        (
            ["training.loss={_target_: keras.losses.Poisson, name: p},categorical_crossentropy"],
            {},
        ),
        (["dataset.name='my data (1).npz','Grün','123','it\\'s {a=b}, \"c\"'"], {}),
        (["dataset.name='a b','c,d'", "dataset.limit=null,100", "dataset.validation=0.2,100"], {}),
        (["experiment=cnn_small,dense_100", "optimizer.learning_rate=1e-4,1e-3", "dataset=digits"], {}),
        ([*CUSTOM, "+model.width=8,16", "++model.shape=null,[3,3]", "+model.title='a b',null"], {}),
        (["++seed=1,2"], {}),
        (["training.batch_size=64"], RATES),
        (["optimizer=adadelta,sgd"], RATES),
        (["sweeps=optimizers", "dataset.size=8"], {**RATES, "training.batch_size": "tag(log, range(16, 65, 2))"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "file" if value else "",
)
def test_a_trial_gets_what_a_run_with_its_values_gets(overrides: list[str], space: dict[str, Any]) -> None:
    configs = composed(*overrides, space=space)
    record = json.loads(json.dumps({key: base.to_record() for key, base in configs.bases.items()}))
    thawed = TrialConfigs(
        configs.space,
        {key: BaseConfig.from_record(base, ExecutionWhitelist(("net_of_my_own.net",))) for key, base in record.items()},
    )
    for values in islice(configs.space.combinations(), 4):
        config = configs.of(values)
        assert (plain(config.values), config.choices) == from_scratch(configs, values, tuple(overrides))
        again = thawed.of(json.loads(json.dumps(values)))
        assert (plain(again.values), again.choices) == (plain(config.values), config.choices)


def test_a_trial_has_no_section_of_the_sweep() -> None:
    config = composed("seed=1,2", "sweep.max_trials=1", "executor=local").of({"seed": 2})
    assert not set(SWEEP_SECTIONS) & (set(config.values) | set(config.choices))


def test_what_refers_to_a_value_follows_it() -> None:
    configs = composed("dataset.name=photos,scans", "training.epochs=${training.batch_size}")
    values = configs.of({"dataset.name": "scans"}).values
    assert values["tracking"]["experiment"] == "scans"
    assert values["training"]["epochs"] == values["training"]["batch_size"]


def test_trials_share_nothing() -> None:
    configs = composed("model.widths=[8],[16]")
    configs.of({"model.widths": [8]}).values["model"]["widths"].append(4)
    assert configs.of({"model.widths": [8]}).values["model"]["widths"] == [8]


def test_the_first_config_has_the_first_choices_and_lowest_numbers() -> None:
    space = {**RATES, "training.epochs": "interval(2, 9)", "model.dropout": "range(0.1, 0.5, 0.1)"}
    values = composed(space=space).first().values
    chosen = values["optimizer"]["learning_rate"], values["optimizer"]["beta_1"], values["model"]["dropout"]
    assert chosen == (0.001, 0.8, 0.1)
    assert repr(values["training"]["epochs"]) == "2"


def test_intervals_of_integer_keys_are_whole() -> None:
    found = {
        p.key: p.values
        for p in composed(
            "training.epochs=interval(1,9)",
            "model.dropout=interval(0,0.5)",
            "training.early_stopping_patience=interval(1,3)",
        ).space.parameters
    }
    assert [(key, values.whole) for key, values in found.items()] == [
        ("training.epochs", True),
        ("model.dropout", False),
        ("training.early_stopping_patience", True),
    ]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["training.epohcs=1,2"], "the command line: training.epohcs does not exist; did you mean training.epochs?"),
        (["model.kernel=3,5"], "the command line: model.kernel does not exist in this config; use it with model=cnn"),
        (["model=mlp,cnn", "model.kernel=3,5"], "model.kernel does not exist in this config; use it with model=cnn"),
        (["+training.epoch=1,2"], "the command line: training.epoch does not exist; did you mean training.epochs?"),
        (["seed.x=1,2"], "the command line: seed.x does not exist; +seed.x=... adds it"),
        (["training.epochs=ten,1"], "the command line: training.epochs must be an integer, but got 'ten'"),
        (["training.epochs=1,ten"], "the command line: training.epochs must be an integer, but got 'ten'"),
        (["training.epochs=range(0,9)"], "the command line: training.epochs must be at least 1, but got 0"),
        (["training.epochs=1,2.5"], "the command line: training.epochs must be an integer, but got 2.5"),
        (["model.dropout=interval(0.5,1)"], "the command line: model.dropout must be less than 1, but got 1.0"),
        (["model.widths=[8],[8,wide]"], "the command line: model.widths[1] must be an integer, but got 'wide'"),
        (["model.batch_norm=true,yes"], "the command line: model.batch_norm must be true or false, but got 'yes'"),
        (["+model.augmentation={rotation: 2},{zoom: 0.1}"], "the command line: model.augmentation.rotation must be"),
        (["training.label_smoothing=0.0,0.1"], "training.label_smoothing must be 0 with training.loss=sparse_"),
        (["seed=1,2", "training.epochs=0"], "training.epochs must be at least 1, but got 0"),
        (["model=mlp,custom"], "model._target_ is missing; give model._target_=..."),
        (["model=mlp,cnnn"], "model=cnnn: model must be one of cnn, custom, mlp, pretrained, resnet, but got 'cnnn'"),
    ],
)  # fmt: skip
def test_what_a_trial_could_not_be_run_with_is_refused(overrides: list[str], said: str) -> None:
    (line,) = refusal(*overrides)
    assert said in line


def test_a_value_is_tried_in_every_config_it_would_be_used_in() -> None:
    (line,) = refusal("experiment=cnn_adadelta,cnn_small", "training.label_smoothing=0.0,0.1")
    assert "label_smoothing must be 0 with training.loss=sparse_categorical_crossentropy, but got 0.1" in line


@pytest.mark.usefixtures("my_net")
def test_the_keys_of_a_custom_model_are_checked_in_its_own_function() -> None:
    assert refusal(*CUSTOM, "+model.width=8,wide") == [
        "the command line: model.width must be an integer, but got 'wide'"
    ]
    assert refusal(*CUSTOM, "+model.shape=null,[3]") == ["model.width is missing; give +model.width=..."]


def test_a_combination_that_does_not_compose_is_named_and_no_sweep_starts() -> None:
    found = refusal("model=mlp,cnnn", "optimizer=adam,sdg")
    assert [line.split(": ")[0] for line in found] == [
        "model=mlp optimizer=sdg",
        "model=cnnn optimizer=adam",
        "model=cnnn optimizer=sdg",
    ]


def test_all_faults_are_listed_at_once_with_their_place() -> None:
    space = {
        "training.batch_size": "0, 32",
        "model.dropot": "0.1, 0.2",
        "when": {"model=cnn": {"model.kernel": "1, x"}, "model=mlp": {"model.widths": "[8], 8"}},
    }
    found = refusal("model=mlp,cnn,cnnn", "seed=0,-1", "training.epochs=0", space=space)
    places = [line.partition(" must ")[0].partition(" does ")[0] for line in found]
    assert sorted(places) == [
        "model=cnnn: model",
        f"{FILE}: model.dropot",
        f"{FILE}: model.kernel",
        f"{FILE}: model.widths",
        f"{FILE}: training.batch_size",
        "the command line: seed",
        "training.epochs",
    ]


def test_too_many_combinations_of_groups_are_refused_at_once() -> None:
    overrides = ["model=mlp,cnn,resnet", "optimizer=glob(*)", "dataset=glob(*)", "training=glob(*)"]
    (line,) = refusal(*overrides)
    assert "config groups in at most 200 ways" in line
    assert line.endswith("but got 441; sweep fewer groups at once")


def test_combinations_under_conditions_only_are_composed() -> None:
    space = {"model": "mlp, cnn", "when": {"model=cnn": {"optimizer": "adam, sgd"}}}
    configs = composed("optimizer=adadelta", space={**space, "when": {}})
    assert len(configs.bases) == 2
    configs = composed(space=space)
    assert [base.choices["model"] + " " + base.choices["optimizer"] for base in configs.bases.values()] == [
        "mlp adam",
        "cnn adam",
        "cnn sgd",
    ]
    for values in configs.space.combinations():
        assert ("blocks" in configs.of(values).values["model"]) == (values["model"] == "cnn")
