"""What finished runs took, from which a plan predicts what others will take."""

from dataclasses import dataclass

from mnist_exp.tracking import tags
from mnist_exp.tracking.find import FINISHED, list_runs
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import StoredRun

ENOUGH = 3  # trials, without single runs, which may have had more cores
TRAINING = "wall_seconds/training"


@dataclass(frozen=True)
class Cost:
    """What a training took, in seconds. beside: all that is not an epoch. epoch: a mean one of `epochs`, validated."""

    parameters: int
    batch_size: int
    beside: float
    epoch: float
    epochs: int = 1


def read_costs(store: Store, digest: str, model: str) -> list[Cost]:
    """Returns the costs of trials with this data set and choice of model; of single runs, too, if there are few."""
    condition = f"params.`dataset.digest` = '{digest}' and params.model = '{model}' and {FINISHED}"
    with store_errors(store.uri):
        runs = list_runs(store, condition)
    trials = [cost for run in runs if run.tags.get(tags.KIND) == "trial" and (cost := _cost_of(run))]
    return trials if len(trials) >= ENOUGH else [cost for run in runs if (cost := _cost_of(run))]


def _cost_of(run: StoredRun) -> Cost | None:
    """The cost of a run; None for a trial with several seeds, which are runs of their own."""
    epochs = int(run.tags.get(tags.TRAINED, run.tags.get(tags.EPOCHS, run.params.get("training.epochs", 0))))
    training, seconds = run.metrics.get(TRAINING), run.seconds
    if training is None or seconds is None or epochs == 0 or tags.PARAMETERS not in run.tags:
        return None
    parameters, batch = int(run.tags[tags.PARAMETERS]), int(run.params["training.batch_size"])
    return Cost(parameters, batch, max(0.0, seconds - training), training / epochs, epochs)
