"""The names of all tags in the store. Stored runs hold them, so names are added here but never renamed."""

# Every run
KIND = "kind"  # run, trial, execution (one seed of a trial) or sweep
FOLDER = "folder"  # the local folder while the run is being written
HOST, PID, STARTED = "host", "pid", "started"  # the process that writes the run
BOOT, PID_NAMESPACE, START_TICKS = "boot_id", "pid_namespace", "start_ticks"  # its machine since the start, and its own
ERROR = "error"
ENDED_BY = "ended_by"
USED_EPOCH, PARAMETERS, COMPILED_EPOCH = "used_epoch", "parameters", "compiled_epoch"
DIVERGED = "diverged"  # true: the training ended much worse than guessing
OF_TRAINING = (USED_EPOCH, PARAMETERS, COMPILED_EPOCH, DIVERGED)
STARTED_FROM = "started_from"  # the id of the run whose weights were the first ones
REPRODUCES = "reproduces"  # the id of the run that was trained again
CHAMPION, PROMOTED_BY = (
    "champion",
    "promoted_by",
)  # NAME version N, of which the run is the champion; and who made it so

CONFIG_HASH = "config_hash"

# Trials
SWEEP, TRIAL = "sweep", "trial"  # the id of the sweep's run, the number of the trial
VALUES, RUNG = "values", "rung"  # JSON
EPOCHS, PRUNED = "epochs", "pruned"
TRAINED = "trained_epochs"  # of all seeds together, without those of the trial that it continues
MODEL_RUN = "model_run"  # the id of the execution that holds the model
SUPERSEDED = "superseded"  # why the run does not count
PROPOSED_BY = "proposed_by"  # first/1 or request/1: who has chosen its values; without it, the sampler
VIOLATES = "violates"  # the constraint that the trial does not meet, so that it may not win
CONFIRMS = "confirms"  # of an execution: the number of the new seed, from 0, with which it confirms its trial
REUSED = "reused"  # the id of the run whose result the trial has, instead of training again

# Sweeps
TESTED = "tested"  # the id of the run whose model was evaluated on the test set
BEST_TRIAL, BEST_RUN = "best_trial", "best_run"
HEARTBEAT = "heartbeat"  # of the process that runs the sweep: its generation and the time
RELEASED, RESUMED = "released/", "resumed/"  # prefixes of a generation: its process has ended; what it changed, JSON
ANSWER = "answer/"  # prefix of the number of a request to the sweep: its answer, JSON

# The environment of a run
COMMAND, SYSTEM, DIRTY = "command", "system", "git.dirty"  # DIRTY and COMMIT: of the repository of the current folder
CODE = "code."  # prefix: of this package, its version and, in a checkout, commit and state
CODE_VERSION, CODE_COMMIT, CODE_DIRTY = f"{CODE}version", f"{CODE}commit", f"{CODE}dirty"
CODE_DIGEST = f"{CODE}digest"  # of its files
OWN_CODE = "own_code.digest"  # of the code of the current folder that the config names
VERSION, HARDWARE = "version.", "hardware."  # prefixes

# Copies in another store. Ids of runs and models in any other tag become those of the copies there.
COPIED_FROM = "copied_from"  # the id in the store in which the run was written, also in a copy of a copy
COPIED_WHOLE = "copied_whole"  # the run had ended, and nothing is missing
COPIED_STATE = "copied_state"  # a digest of the run that was copied
OF_COPIES = frozenset({COPIED_FROM, COPIED_WHOLE, COPIED_STATE})

# Versions of a registered model, compared with the champion before
AGAINST_CHAMPION, RIGHT_ALONE, CHAMPION_RIGHT_ALONE, P = "against_champion", "right_alone", "champion_right_alone", "p"

# MLflow's own
RUN_NAME, PARENT, NOTE = "mlflow.runName", "mlflow.parentRunId", "mlflow.note.content"
SOURCE_NAME, SOURCE_TYPE, USER = "mlflow.source.name", "mlflow.source.type", "mlflow.user"
COMMIT = "mlflow.source.git.commit"
DATA_CONTEXT = "mlflow.data.context"
LOGGED_IMAGES = "mlflow.loggedImages"  # true: its pages look for pictures of the run
