import io
import json
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

import mnist_exp
from mnist_exp.errors import DataError, TrackingError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten of scikit-learn's digits as dark ink on large white pages, label first in the name."""
    folder = tmp_path / "photos"
    folder.mkdir()
    small, labels = load_digits(return_X_y=True)
    for label in range(10):
        ink = Image.fromarray((255 - small[labels == label][3].reshape(8, 8) * 15.9).astype(np.uint8))
        page = Image.new("L", (300, 260), 255)
        page.paste(ink.resize((120, 120), Image.Resampling.BICUBIC), (60, 90))
        page.save(folder / f"{label}.png")
    return folder


def test_a_folder_is_answered_line_by_line(run_main, photos) -> None:
    status, out, _ = run_main("predict", str(photos), "--run", "good", "--json")
    assert status == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(line["path"]).name for line in lines] == [f"{label}.png" for label in range(10)]
    assert sum(line["label"] == Path(line["path"]).stem for line in lines) >= 8
    assert all(0 <= line["second_probability"] <= line["probability"] <= 1 for line in lines)
    assert len({line["run"] for line in lines}) == 1


def test_lines_name_the_model_the_answer_and_the_runner_up(run_main, photos) -> None:
    status, out, _ = run_main("predict", str(photos / "0.png"), str(photos / "1.png"))
    model, *lines = out.splitlines()
    assert status == 0
    assert model.startswith("run  good (")
    assert "best of 2 finished runs on the same images; 1 on other images" in model
    assert all("%, then " in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_photo_of_a_flower_is_not_like_a_digit(run_main, photos) -> None:
    (photos / "0.png").unlink()
    Image.fromarray(load_sample_image("flower.jpg")).save(photos / "flower.png")
    status, out, _ = run_main("predict", str(photos), "--run", "good")
    (line,) = [line for line in out.splitlines() if "flower.png" in line]
    assert line.endswith("  not like a digit")
    assert len(line) <= 80
    status, out, _ = run_main("predict", str(photos), "--run", "good", "--json")
    assert status == 0
    assert [json.loads(line)["doubt"] for line in out.splitlines()] == [None] * 9 + ["not like a digit"]


def test_a_poor_model_says_that_it_is_unsure(run_main, photos) -> None:
    _, out, _ = run_main("predict", str(photos), "--run", "poor")
    assert "  unsure" in out


def test_what_is_no_image_gets_a_line_and_the_others_an_answer(run_main, photos) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    Image.new("L", (50, 50), 200).save(photos / "empty.png")
    (photos / "nothing").mkdir()
    status, out, err = run_main("predict", str(photos), str(photos / "missing.png"), str(photos / "nothing"), "--json")
    assert status == 1
    assert sum("label" in json.loads(line) for line in out.splitlines()) == 10
    assert len(out.splitlines()) == 14
    assert "broken.png is not a readable image" in err
    assert "empty.png: an image to predict must show something" in err
    assert "missing.png does not exist" in err
    assert "nothing must contain images" in err
    assert "Traceback" not in err


def test_files_of_another_kind_in_a_folder_are_counted_and_named(run_main, photos) -> None:
    for name in ("a.svg", "b.pdf", "c.heic", "d.txt", "e.doc", "f.mov", ".hidden"):
        (photos / name).write_text("no image that can be read")
    status, out, err = run_main("predict", str(photos), "--run", "good", "--json")
    assert status == 0
    assert len(out.splitlines()) == 10
    assert "skipped 6 files of another kind than .bmp, .gif, " in err
    assert err.endswith(": a.svg, b.pdf, c.heic, d.txt, e.doc, ...\n")


def test_show_says_how_many_of_the_images_it_shows(run_main, photos, tmp_path) -> None:
    shown = tmp_path / "shown.png"
    _, _, err = run_main("predict", *[str(photos)] * 3, "--run", "good", "--show", str(shown))
    assert err == f"{shown} shows the first 24 of 30 images\n"
    _, _, err = run_main("predict", str(photos), "--run", "good", "--show", str(shown))
    assert err == ""


@pytest.mark.usefixtures("rendered_figures")
def test_originals_and_tiles_are_shown_side_by_side(run_main, photos, tmp_path) -> None:
    status, _, _ = run_main("predict", str(photos), "--show", str(tmp_path / "shown.png"))
    assert status == 0
    assert Image.open(tmp_path / "shown.png").size[0] > 900
    status, _, err = run_main("predict", str(photos / "1.png"), "--show", str(tmp_path / "no" / "shown.png"))
    assert status == 1
    assert "--show" in err


def test_an_image_comes_from_standard_input_too(runs, photos) -> None:
    done = processes.run("predict", "-", "--json", "--run", "good", cwd=runs[0], stdin=photos / "0.png")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "0"
    assert json.loads(done.stdout)["path"] == "-"


def test_from_python_a_file_pixels_or_an_image(runs, photos, monkeypatch) -> None:
    monkeypatch.chdir(runs[0])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    image = Image.open(photos / "0.png")
    answers = [mnist_exp.predict_digit(given, "good") for given in (photos / "0.png", image, np.asarray(image))]
    assert {answer.label for answer in answers} == {"0"}
    assert len({answer.probability for answer in answers}) == 1
    with pytest.raises(DataError, match="not a readable image"):
        mnist_exp.predict_digit(photos / "missing.png")
    with pytest.raises(TrackingError, match="must be an id"):
        mnist_exp.predict_digit(image, "nobody")


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The file with bytes changed, taken out, doubled or cut off."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 8))):
        place = int(rng.integers(len(changed)))
        match int(rng.integers(4)):
            case 0:
                changed[place] = int(rng.integers(256))
            case 1:
                del changed[place : place + int(rng.integers(1, 30))]
            case 2:
                changed[place:place] = changed[place : place + int(rng.integers(1, 30))]
            case 3:
                del changed[max(place, 30) :]
        if not changed:
            break
    return bytes(changed)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_2100_damaged_files_are_tiles_or_refused(kind) -> None:
    from mnist_exp.data.images import read_image
    from mnist_exp.data.preparation import prepare

    rng, buffer = np.random.default_rng(len(kind)), io.BytesIO()
    pixels = np.full((40, 32, 3), 255, np.uint8)
    pixels[8:30, 14:18] = 30
    Image.fromarray(pixels).save(buffer, kind)
    for number in range(300):
        try:
            image = read_image(io.BytesIO(mutated(buffer.getvalue(), rng)), f"{number}")
            assert prepare(image, "mnist", (28, 28, 1)).pixels.shape == (28, 28, 1)
        except DataError as error:
            assert "Traceback" not in str(error)  # noqa: PT017


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path) -> None:
    import resource
    import zlib

    from mnist_exp.data.images import read_image

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = (30_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    body = zlib.compress(bytes(10_000_000))
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="not a readable image"):
        read_image(tmp_path / "bomb.png", "bomb.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
