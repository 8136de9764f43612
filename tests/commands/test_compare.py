import csv
import io
import json
import re

import pytest


def test_the_best_come_first_with_intervals_and_the_test_against_the_first(run_main) -> None:
    status, out, _ = run_main("compare")
    assert status == 0
    names = [line.split()[0] for line in out.splitlines() if "% (" in line and line[0] != " "]
    assert names == ["good", "poor", "elsewhere"]
    assert [line[:6] for line in out.splitlines() if line.startswith("data ")] == ["data 1", "data 2"]
    words = " ".join(out.split())
    assert "training.epochs=8 optimizer.learning_rate=0.01" in words or "optimizer.learning_rate=0.01" in words
    assert "val against the first: worse (" in words
    assert max(map(len, out.splitlines())) <= 80


def test_runs_can_be_named_and_filtered(run_main, runs) -> None:
    _, out, _ = run_main("compare", "poor", runs[1]["good"].run_id[:8], "--json")
    assert [row["name"] for row in json.loads(out)] == ["poor", "good"]
    _, out, _ = run_main("compare", "--where", "training.epochs=1", "--where", "dataset.seed=7", "--csv")
    assert [row["name"] for row in csv.DictReader(io.StringIO(out))] == ["elsewhere"]


def test_a_run_that_was_not_named_is_said_with_the_reason(run_main, runs) -> None:
    status, out, err = run_main("compare", "best", "poor")
    assert (status, err) == (0, "")
    assert out.startswith("run  good (")
    assert "best of 2 finished runs on the same images" in out.splitlines()[0]
    status, out, err = run_main("compare", "poor", "--reference", "best", "--csv")
    assert status == 0
    assert out.startswith("name,")
    assert err.startswith("run  good (")
    assert not run_main("compare", "good", "poor")[1].startswith("run  good")


def test_plain_values_have_what_differs_and_the_p_values(run_main, runs) -> None:
    _, out, _ = run_main("compare", "good", "poor", "elsewhere", "--json")
    good, poor, elsewhere = json.loads(out)
    assert good["val/p"] is None
    assert poor["val/p"] < 0.05
    assert poor["test/p"] < 0.05
    assert elsewhere["dataset.seed"] == "7"
    assert good["optimizer.learning_rate"] == "0.01"
    assert good["val/accuracy"] == pytest.approx(runs[1]["good"].metrics["val/accuracy"])
    assert good["parameters"] == runs[1]["good"].parameters
    assert "tracking.folder" not in good
    assert poor["val/p_adjusted"] >= poor["val/p"]
    assert (poor["val/family"], poor["reference"], poor["reference_by"]) == (2, good["id"], "user")


def test_a_figure_and_a_page_that_needs_nothing_beside_it(run_main, tmp_path) -> None:
    from PIL import Image

    status, _, _ = run_main(
        "compare", "good", "poor", "--figure", str(tmp_path / "both.png"), "--html", str(tmp_path / "both.html")
    )
    assert status == 0
    assert min(Image.open(tmp_path / "both.png").size) > 600
    page = re.sub(r"<script>.*?</script>", "", (tmp_path / "both.html").read_text(), flags=re.DOTALL)
    assert not re.search(r"<(link|iframe|object|base|img|script)", page)
    assert re.findall(r"<h2>(.*)</h2>", page) == ["Curves", "Confusion matrices"]
    links = re.findall(r'href="(.*?)"', page)
    assert len(links) == 2
    page_of_run = r"http://127\.0\.0\.1:5000/#/experiments/\d+/runs/[0-9a-f]{32}\?workflowType=machine_learning"
    assert all(re.fullmatch(page_of_run, link) for link in links)
    assert re.search(r"On the same validation images poor \(\w+\) did worse than good \(\w+\)\.", page)


@pytest.mark.parametrize("suffix", ["svg", "pdf", "jpg"])
def test_the_suffix_chooses_the_format(run_main, tmp_path, suffix) -> None:
    status, _, err = run_main("compare", "good", "--figure", str(tmp_path / f"one.{suffix}"))
    assert status == 0, err
    assert (tmp_path / f"one.{suffix}").read_bytes()[:4] in (b"<svg", b"%PDF", b"\xff\xd8\xff\xe0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "must be an id, a name, latest, best"),
        (["--where", "model"], "--where must be KEY=VALUE"),
        (["--where", "model='x\""], "--where must be KEY=VALUE"),
        (["--where", "model=resnet"], "has no finished run with these parameters"),
        (["--where", "model=['resnet']"], "has no finished run with these parameters"),
        (["--experiment", "nowhere"], "the experiment must be one of"),
        (["good", "--figure", "no/such/folder.png"], "in a folder that exists"),
        (["good", "--figure", "one.tiff"], "one.tiff cannot be written (the suffix must be .png, .svg, .pdf or .jpg)"),
    ],
)
def test_what_cannot_be_compared_is_refused(run_main, arguments, said) -> None:
    status, out, err = run_main("compare", *arguments)
    assert (status, out) == (1, "")
    assert said in err
    assert "Traceback" not in err
