from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from mnist_exp.config.check import check
from mnist_exp.config.compose import CONF, compose
from mnist_exp.training.build import build_optimizer

OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml") if path.stem != "custom")
STEPS = 100


def optimizer(*overrides: str) -> Any:
    return build_optimizer(check(compose(overrides)), STEPS)


def rates(*overrides: str) -> list[float]:
    """The learning rate of each step, and of the one after the last."""
    schedule = optimizer("optimizer.schedule=cosine", *overrides)._learning_rate
    return [float(schedule(step)) for step in range(STEPS + 1)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_constant_rate_is_the_one_written(name: str) -> None:
    written = OmegaConf.load(CONF / "optimizer" / f"{name}.yaml").learning_rate
    built = optimizer(f"optimizer={name}")
    assert type(built).__name__.lower() == name
    assert float(built.learning_rate.numpy()) == pytest.approx(written)
    assert float(optimizer(f"optimizer={name}", "optimizer.learning_rate=0.5").learning_rate.numpy()) == 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_key_reaches_keras(name: str) -> None:
    written = OmegaConf.to_container(OmegaConf.load(CONF / "optimizer" / f"{name}.yaml"))
    assert isinstance(written, dict)
    given = {key: value for key, value in written.items() if key not in ("_target_", "schedule", "warmup")}
    built = optimizer(f"optimizer={name}").get_config()
    assert {key: built[key] for key in given} == pytest.approx(given)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_cosine_falls_from_the_written_rate_to_zero(name: str) -> None:
    found = rates(f"optimizer={name}", "optimizer.learning_rate=0.5")
    assert found[0] == 0.5
    assert found[STEPS // 2] == pytest.approx(0.25)
    assert found[STEPS] == pytest.approx(0, abs=1e-7)
    assert (np.diff(found) < 0).all()


def test_warm_up_rises_to_the_written_rate_and_then_falls_to_zero() -> None:
    found = rates("optimizer.learning_rate=0.5", "optimizer.warmup=0.2")
    assert found[0] == 0
    assert found[10] == pytest.approx(0.25)
    assert max(found) == found[20] == pytest.approx(0.5)
    assert (np.diff(found[:21]) > 0).all()
    assert (np.diff(found[20:]) < 0).all()
    assert found[STEPS] == pytest.approx(0, abs=1e-7)


def test_a_warm_up_of_less_than_a_step_is_none() -> None:
    assert rates("optimizer.learning_rate=0.5", "optimizer.warmup=0.001") == rates("optimizer.learning_rate=0.5")


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_the_weights(name: str, schedule: str) -> None:
    import keras

    weight = keras.Variable([1.0, -1.0])
    built = optimizer(f"optimizer={name}", f"optimizer.schedule={schedule}")
    built.build([weight])
    built.apply([keras.ops.convert_to_tensor([1.0, -1.0])])
    low, high = keras.ops.convert_to_numpy(weight)
    assert low < 1
    assert high > -1
