"""training.resume: an interrupted run goes on under its id, to where it would have come undisturbed."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from processes import at_metric, die, start

import mnist_exp
from mnist_exp import experiment, tracking
from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.config.own_code import digest_own_code
from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Tracking, Training
from mnist_exp.errors import ConfigError, TrackingError
from mnist_exp.evaluation import run_files as artifacts
from mnist_exp.experiment import Listener, Result
from mnist_exp.tracking.find import find_run, list_runs
from mnist_exp.tracking.mlflow_run import MlflowRun
from mnist_exp.tracking.owner import end_dead_runs
from mnist_exp.tracking.store import Store, open_store
from mnist_exp.tracking.stored_run import fetch_run
from mnist_exp.tracking.tags import OWN_CODE

BASE = ("training=smoke", "training.epochs=6", "model.widths=[8]", "dataset.limit=300")


@pytest.fixture(autouse=True)
def _plain_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for table in ("FILES", "FILES_OF_SPLIT"):  # figures take most of a short run
        kept = {path: make for path, make in getattr(artifacts, table).items() if not path.startswith("figures/")}
        monkeypatch.setattr(artifacts, table, kept)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that the tests of this module share."""
    return tmp_path_factory.mktemp("resuming") / "mlruns"


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(None, root)


class Stopping(Listener):
    """Interrupts after this epoch's metrics, before its checkpoint, as Ctrl-C would."""

    def __init__(self, epoch: int) -> None:
        self.last = epoch

    def on_epoch(self, epoch: int, metrics: object) -> None:
        if epoch == self.last:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(root: Path, store: Store) -> Callable[..., str]:
    """Starts a run, interrupts it in an epoch, and returns its id."""

    def start(*overrides: str, name: str, epoch: int = 4) -> str:
        with pytest.raises(KeyboardInterrupt):
            experiment.run(check(compose([*overrides, f"tracking.folder={root}", f"name={name}"])), Stopping(epoch))
        run = find_run(store, name)
        assert run.status == "KILLED"
        return run.id

    return start


@pytest.fixture
def run(root: Path) -> Callable[..., Result]:
    """A run in the shared folder."""
    return lambda *overrides: mnist_exp.run(*overrides, f"tracking.folder={root}", quiet=True)


def assert_as_undisturbed(store: Store, run_id: str, resumed: Result, undisturbed: Result) -> None:
    assert resumed.run_id == run_id
    assert resumed.undelivered is None
    assert (resumed.history, resumed.used_epoch) == (undisturbed.history, undisturbed.used_epoch)
    assert resumed.metrics == undisturbed.metrics
    weights = zip(resumed.load_model().get_weights(), undisturbed.load_model().get_weights(), strict=True)
    assert all(np.array_equal(ours, theirs) for ours, theirs in weights)
    found = fetch_run(store, run_id)
    assert found.status == "FINISHED"
    assert not {"error", "ended_by"} & found.tags.keys()
    for key in ("train/loss", "train/accuracy", "learning_rate", "wall_seconds/elapsed", "test/accuracy"):
        theirs = [metric.step for metric in store.client.get_metric_history(undisturbed.run_id, key)]
        ours = store.client.get_metric_history(run_id, key)
        assert [metric.step for metric in ours] == theirs, key
        assert len({metric.step for metric in ours}) == len(ours), key
    assert not Path(found.tags["folder"]).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_after_sigkill_a_run_goes_on_to_the_same_weights(root: Path, run: Callable[..., Result]) -> None:
    noisy = (*BASE, "model.dropout=0.3")
    between_metrics_and_checkpoint = at_metric("train/loss", 4, die, before=False)
    command = [*noisy, "name=killed", f"tracking.folder={root}"]
    dying = start(*command, cwd=root.parent, prepare=between_metrics_and_checkpoint)
    undisturbed = run(*noisy)
    assert dying.wait() == -signal.SIGKILL, dying.stderr
    store = open_store(None, root)
    killed = find_run(store, "killed")
    assert (killed.status, killed.metrics["train/loss"] > 0) == ("RUNNING", True)
    folder = Path(killed.tags["folder"])
    assert len(json.loads((folder / "checkpoints" / "state.json").read_text())["epochs"]) == 3
    weights = (folder / "checkpoints" / "epoch-00003.npy").read_bytes()
    (folder / "checkpoints" / "epoch-00004.npy").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(TrackingError, match="the run must be an id, a name or latest"):
        run("training.resume=another")
    killed = fetch_run(store, killed.id)
    assert (killed.status, killed.tags["ended_by"]) == ("KILLED", "its process was gone"), "by the next command"
    resumed = run(f"training.resume={killed.id[:8]}")
    assert resumed.name == "killed"
    assert_as_undisturbed(store, killed.id, resumed, undisturbed)
    again = fetch_run(store, killed.id)
    assert again.params == killed.params
    assert again.tags["pid"] == str(os.getpid())


def test_patience_and_the_best_weights_survive(
    store: Store, run: Callable[..., Result], interrupted: Callable[..., str]
) -> None:
    """The learning rate is halved, and the training ended, by epochs from before and after the interruption."""
    waiting = (
        *BASE,
        "training.epochs=40",
        "training.weights=best",
        "training.reduce_lr_patience=1",
        "training.reduce_lr_monitor=val_accuracy",
        "training.early_stopping_patience=3",
        "training.early_stopping_monitor=val_accuracy",
        "optimizer.learning_rate=0.02",
        "model.widths=[32]",
    )
    undisturbed = run(*waiting)
    rates = [metric.value for metric in store.client.get_metric_history(undisturbed.run_id, "learning_rate")]
    epochs = len(rates)
    assert epochs < 40, "it stopped early"
    run_id = interrupted(*waiting, name="waiting", epoch=epochs - 1)
    assert rates[0] > rates[epochs - 3] > rates[-1], "the rate was halved before and after"
    assert undisturbed.used_epoch < epochs - 1
    resumed = run("training.resume=waiting")
    assert_as_undisturbed(store, run_id, resumed, undisturbed)
    assert [metric.value for metric in store.client.get_metric_history(run_id, "learning_rate")] == rates


def test_a_schedule_survives_beside_patience(
    store: Store, run: Callable[..., Result], interrupted: Callable[..., str]
) -> None:
    scheduled = (*BASE, "optimizer.schedule=cosine", "optimizer.warmup=0.2", "training.early_stopping_patience=5")
    undisturbed = run(*scheduled)
    run_id = interrupted(*scheduled, name="scheduled", epoch=3)
    assert_as_undisturbed(store, run_id, run("training.resume=latest"), undisturbed)


def test_epochs_may_grow(store: Store, run: Callable[..., Result], interrupted: Callable[..., str]) -> None:
    run_id = interrupted(*BASE, name="growing", epoch=3)
    resumed = run("training.resume=growing", "++training.epochs=8")
    assert resumed.run_id == run_id
    assert len(resumed.history["loss"]) == 8
    steps = [metric.step for metric in store.client.get_metric_history(run_id, "train/loss")]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(TrackingError, match=r"^growing \(\w{8}\) is finished; there is nothing to resume"):
        run("training.resume=growing")


@pytest.fixture
def other(tmp_path: Path, root: Path, store: Store) -> tuple[Path, Store]:
    """A store of this test's own."""
    shutil.copytree(root, tmp_path / "mlruns", ignore=shutil.ignore_patterns("artifacts", "running"))
    store = open_store(None, tmp_path / "mlruns")
    for run in list_runs(store, "tags.kind = 'run'"):
        store.client.delete_run(run.id)
    return tmp_path / "mlruns", store


def record(folder: Path, store: Store, name: str, checkpoint: bool = True) -> MlflowRun:
    """A run that has begun, with a checkpoint to go on from."""
    begun = MlflowRun.create_run(store, folder, "digits", name)
    (begun.artifacts / "config.yaml").write_text(check(compose(["training.epochs=3"])).to_yaml())
    if checkpoint:
        begun.checkpoints.mkdir()
        (begun.checkpoints / "state.json").write_text("{}")
    return begun


def resume(folder: Path, wanted: str, *more: str) -> RunConfig:
    return experiment.configure(compose([f"training.resume={wanted}", f"tracking.folder={folder}", *more]))


def test_a_run_that_cannot_go_on_is_refused(other: tuple[Path, Store]) -> None:
    folder, store = other
    runs = {name: record(folder, store, name, checkpoint=name != "early") for name in ("done", "early", "busy")}
    runs["done"].end("FINISHED")
    runs["early"].end("KILLED")
    listed = r"the newest are: busy \(\w{8}\), early \(\w{8}\), done \(\w{8}\)$"
    for wanted, message in {
        "done": r"^done \(\w{8}\) is finished; there is nothing to resume; start a new run with more training\.epochs",
        "busy": rf"^busy \(\w{{8}}\) is still running on .*, pid {os.getpid()}; end it first",
        "early": r"^early \(\w{8}\) has no checkpoint in .*; it ended before its first epoch; start a new run",
        "latest": r"^busy \(\w{8}\) is still running",
        "unknown": f"^the run must be an id, a name or latest, but got 'unknown'; {listed}",
        # starts of ids that read as numbers
        "12345678": f"^the run must be an id, a name or latest, but got '12345678'; {listed}",
        "1234e567": f"^the run must be an id, a name or latest, but got '1234e567'; {listed}",
    }.items():
        with pytest.raises(TrackingError, match=message):
            resume(folder, wanted)
    assert {run.name: run.status for run in list_runs(store, "tags.kind = 'run'")} == {
        "done": "FINISHED",
        "early": "KILLED",
        "busy": "RUNNING",
    }


def test_a_name_of_several_runs_is_refused(other: tuple[Path, Store]) -> None:
    for _ in range(2):
        record(*other, "twice").end("KILLED")
    with pytest.raises(TrackingError, match=r"^run 'twice' is ambiguous: twice \("):
        resume(other[0], "twice")


@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_a_resumed_run_keeps_its_config_but_for_epochs_and_store(other: tuple[Path, Store], status) -> None:
    begun = record(*other, "mine")
    begun.log_params({"model": "cnn", "seed": 0})
    begun.end(status, "KeyboardInterrupt")
    config = resume(other[0], "mine")
    training = config.settings(Training)
    assert (training.epochs, training.resume, config.seed, config.choices) == (3, begun.id, 0, {"model": "cnn"})
    assert config.settings(Tracking).folder == str(other[0])
    assert resume(other[0], begun.id[:8], "training.epochs=5").settings(Training).epochs == 5


def test_a_run_is_not_resumed_with_other_code_of_the_user(
    other: tuple[Path, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "def loss_of_resumed(targets, probabilities):\n    return probabilities[:, 0]\n"
    Path("resumed_losses.py").write_text(code)
    begun = record(*other, "mine")
    began = check(compose(["training.loss={_target_:resumed_losses.loss_of_resumed}"]))
    (begun.artifacts / "config.yaml").write_text(began.to_yaml())
    begun.log_tags({OWN_CODE: digest_own_code(began.values) or ""})
    begun.end("KILLED", "KeyboardInterrupt")
    assert resume(other[0], "mine").settings(Training).resume == begun.id
    Path("resumed_losses.py").write_text(code.replace("0", "1"))
    with pytest.raises(
        ConfigError,
        match=r"^mine \(\w{8}\) must be resumed with the code with which it began \(own_code.digest \w{12}\), "
        r"but got '\w{12}'; restore .*resumed_losses.py as at its start, or start a new run$",
    ):
        resume(other[0], "mine")
    Path("resumed_losses.py").write_text(code)
    resume(other[0], "mine")


@pytest.mark.parametrize("given", [["seed=1"], ["model=cnn"], ["+model.width=3"], ["name=new", "training.epochs=9"]])
def test_other_overrides_are_refused(other: tuple[Path, Store], given: Sequence[str]) -> None:
    record(*other, "mine").end("KILLED")
    with pytest.raises(ConfigError) as refused:
        resume(other[0], "mine", *given)
    (problem,) = refused.value.problems
    assert (problem.key, problem.rule, problem.value) == ("a resumed run", "keeps its recorded config", given[0])
    assert "training.epochs" in problem.remedy


def test_without_tracking_there_is_nothing_to_resume() -> None:
    with pytest.raises(ConfigError, match=r"needs the tracking store that knows the run, but got 'tracking=off'"):
        experiment.configure(compose(["training.resume=mine", "tracking=off"]))


def test_a_resumed_run_is_never_taken_for_dead(other: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another command may clear up at any moment while a run is taken over from the process that left it."""
    folder, store = other
    begun = record(folder, store, "mine")
    begun.end("KILLED", "KeyboardInterrupt")
    store.client.set_tag(begun.id, "started", "0")  # by a process that is gone
    for method in ("set_tag", "delete_tag", "update_run"):
        works = getattr(store.client, method)

        def followed(*args: object, works: Callable = works, **keys: object) -> object:
            answer = works(*args, **keys)
            end_dead_runs(open_store(None, folder))
            return answer

        monkeypatch.setattr(store.client, method, followed)
    settings = Tracking(folder=str(folder))
    monkeypatch.setattr("mnist_exp.tracking.store.open_store", lambda *_: store)
    resumed = tracking.start_run(settings, "unused", begun.id)
    found = fetch_run(store, begun.id)
    assert (found.status, resumed.id, resumed.name) == ("RUNNING", begun.id, "mine")
    assert (found.tags["pid"], "error" in found.tags) == (str(os.getpid()), False)
