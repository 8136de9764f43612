"""sweep list, show, stop, pause, continue, more, add, retry and widen, from the command line."""

import json
import re
import threading
import time
from pathlib import Path

import pytest
from made_up import SWEEP, empty_store

from mnist_exp.commands.sweep import steer
from mnist_exp.tracking.requests import Answer, read_requests, write_answer
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.sweep_run import SweepRun


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def store(home: Path, new_database: Path) -> Store:
    return empty_store(home / "mlruns", new_database)


@pytest.fixture
def record(store: Store) -> SweepRun:
    """A sweep that this process runs, as the store says."""
    return SweepRun.create(store, "sweeps", "mine", SWEEP)


def answering(record: SweepRun, accepted: bool, text: str) -> threading.Thread:
    """Answers the next request as the process of the sweep would."""

    def answer() -> None:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            time.sleep(0.05)
            for one in read_requests(record.fetch()):
                if one.answer is None:
                    write_answer(record.store, record.id, one.request.number, Answer(accepted, text, 1, 0.0))
                    return

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("words", "kind", "arguments"),
    [
        (["stop", "mine"], "stop", {"now": False, "words": []}),
        (["stop", "mine", "--now"], "stop", {"now": True, "words": ["--now"]}),
        (["pause", "mine"], "pause", {}),
        (["continue", "mine"], "continue", {}),
        (["more", "mine", "20"], "more", {"count": 20, "words": [20]}),
        (["add", "mine", "a.b=1", "c=x"], "add", {"words": ["a.b=1", "c=x"]}),
        (["retry", "mine", "7", "12"], "retry", {"trials": [7, 12], "words": [7, 12]}),
        (["widen", "mine", "a.b=1,2"], "widen", {"words": ["a.b=1,2"]}),
    ],
)
def test_a_request_is_kept_with_who_and_when_and_its_answer_is_printed(run_main, record, words, kind, arguments):
    thread = answering(record, True, "so be it")
    status, out, _ = run_main("sweep", *words)
    thread.join()
    assert (status, out) == (0, "accepted  so be it\n")
    ((request, answer),) = [(one.request, one.answer) for one in read_requests(record.fetch())]
    assert (request.kind, request.arguments) == (kind, arguments)
    assert re.fullmatch(r"\S+@\S+", request.by)
    assert request.when > record.run.started - 1
    assert answer is not None
    assert answer.accepted


def test_a_refusal_is_an_error_with_the_reason(run_main, record):
    thread = answering(record, False, "trial 7 must be a failed one")
    status, out, err = run_main("sweep", "retry", "mine", "7")
    thread.join()
    assert (status, out) == (1, "")
    assert err == f"error: {record.run.label} has refused: trial 7 must be a failed one\n"


def test_json_holds_the_answer(run_main, record):
    thread = answering(record, False, "no")
    status, out, _ = run_main("sweep", "more", "mine", "3", "--json")
    thread.join()
    assert status == 1
    assert json.loads(out)["answer"] == {"accepted": False, "text": "no"}


def test_a_process_that_does_not_answer_is_said_and_the_request_waits(run_main, record, monkeypatch):
    monkeypatch.setattr(steer, "PATIENCE", 0.1)
    status, out, _ = run_main("sweep", "more", "mine", "3")
    assert status == 0
    assert out.startswith(
        "waiting   its process has not answered within 0.1 s; the request is kept and answered at the"
    )


def test_without_a_process_more_waits_for_a_resume_and_stop_is_refused(run_main, record):
    record.end("FINISHED")
    status, out, _ = run_main("sweep", "more", "mine", "3")
    assert status == 0
    assert out == (
        "waiting   no process runs the sweep; the request is kept and answered at the latest by: "
        f"python -m mnist_exp -m sweep.resume={record.id[:8]}\n"
    )
    status, _, err = run_main("sweep", "stop", "mine")
    assert status == 1
    assert "does not run (it is FINISHED); resume it with: python -m mnist_exp -m sweep.resume=" in err
    assert len(read_requests(record.fetch())) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stop", "nosuch"], "error: the sweep must be an id, a name or latest, but got 'nosuch'"),
        (["add", "mine", "dropout"], "error: 'dropout' must be KEY=VALUE, in quotes if the shell would read it"),
        (["widen", "mine", ""], "error: '' must be KEY=VALUE"),
        (["add", "mine", "a=" + "x" * 6000], "error: add must be a request of at most 5500 characters, but got "),
    ],
)
def test_bad_input_is_answered_before_anything_is_written(run_main, record, words, said):
    status, _, err = run_main("sweep", *words)
    assert status == 1
    assert said in err
    assert not read_requests(record.fetch())


def test_the_list_shows_state_trials_and_best_of_each_sweep(run_main, record, store):
    record.log({"trials/scored": 3.0, "trials/failed": 1.0, "best/score": 0.9375}, 4)
    other = SweepRun.create(store, "sweeps", "other", SWEEP)
    other.end("FINISHED")
    steer.send_request(store, other.run, "more", {"count": 1})
    status, out, _ = run_main("sweep", "list")
    assert status == 0
    header, first, second = out.splitlines()
    assert header.split() == ["sweep", "id", "state", "trials", "best", "started"]
    assert first.split()[:5] == ["other", other.id[:8], "finished,", "1", "waiting"]
    assert re.search(r"mine +\w{8} +running +3 complete, 1 failed +0\.9375 +\d+ s ago", second)
    plain = json.loads(run_main("sweep", "list", "--json")[1])
    assert [one["state"] for one in plain] == ["finished", "running"]
    assert plain[1]["outcomes"] == {"complete": 3, "failed": 1}


def test_a_paused_sweep_is_shown_as_such(run_main, record):
    steer.send_request(record.store, record.run, "pause", {})
    write_answer(record.store, record.id, 1, Answer(True, "no more trials start", 1, 0.0))
    assert "paused" in run_main("sweep", "list")[1]
    out = run_main("sweep", "status", "mine")[1]
    assert "paused, " in out.splitlines()[0]
    assert re.search(r"^request  pause \(\S+\): accepted\n    no more trials start$", out, re.MULTILINE)
    assert run_main("sweep", "show", "mine")[1] == out  # in a log, once


def test_the_reason_of_a_refusal_is_shown_to_whoever_looks_later(run_main, record):
    """The command that asked may have ended before the answer came."""
    steer.send_request(record.store, record.run, "more", {"words": ["x" * 90]})
    write_answer(record.store, record.id, 1, Answer(False, "the test set was opened", 1, 0.0))
    steer.send_request(record.store, record.run, "pause", {})
    lines = run_main("sweep", "status", "mine")[1].splitlines()
    waiting, refused, reason = lines[-3:]
    assert re.fullmatch(r"request  pause \(\S+\): waits", waiting)
    assert re.fullmatch(r"request  more x+…x+ \(\S+\): refused", refused)
    assert reason == "    the test set was opened"
    newest, oldest = json.loads(run_main("sweep", "status", "mine", "--json")[1])["requests"]
    assert (newest["request"], newest["accepted"], newest["answer"]) == ("pause", None, None)
    assert (oldest["accepted"], oldest["answer"]) == (False, "the test set was opened")


def test_an_empty_store_says_how_to_start_a_sweep(run_main, store):
    assert run_main("sweep", "list")[1] == "no sweep yet; start one with: python -m mnist_exp -m sweeps=smoke\n"
