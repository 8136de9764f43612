"""CSV files: labels with pixels, or labels with the names of image files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_exp.data import Dataset, csv
from mnist_exp.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 16), dtype=np.uint8)
LABELS = np.arange(30) % 3


def write(path: Path, columns: dict[str, list]) -> str:
    lines = [",".join(columns)] + [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def pixel_columns(start: int = 0, name: str = "pixel{}") -> dict[str, list]:
    return {name.format(start + place): PIXELS[:, place].tolist() for place in range(16)}


def photos(folder: Path, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> list[str]:
    (folder / "photos").mkdir()
    names = []
    for place in range(30):
        pixels = np.random.default_rng(place).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        names.append(f"{place:02d}.png")
        Image.fromarray(pixels).convert(mode).save(folder / "photos" / names[-1])
    return names


@pytest.mark.parametrize("name", ["pixel{}", "{}", "px_{}", "Pixel {}"])
def test_pixels_as_in_kaggles_mnist(tmp_path: Path, name: str) -> None:
    data = csv(write(tmp_path / "train.csv", {"label": LABELS.tolist(), **pixel_columns(name=name)}))
    assert np.array_equal(data.train.images, PIXELS.reshape(30, 4, 4, 1))
    assert np.array_equal(data.train.labels, LABELS)
    assert data.class_names == ("0", "1", "2")
    assert data.description == "train.csv, 30 images in 3 classes"


def test_names_of_rows_and_columns_as_in_other_mnist_files(tmp_path: Path) -> None:
    columns = {
        f"{row + 1}x{column + 1}": PIXELS[:, 4 * row + column].tolist() for row in range(4) for column in range(4)
    }
    data = csv(write(tmp_path / "train.csv", {"label": LABELS.tolist(), **columns}))
    assert np.array_equal(data.train.images, PIXELS.reshape(30, 4, 4, 1))


@pytest.mark.parametrize(
    ("keys", "shape"),
    [({"height": 2}, (2, 8, 1)), ({"width": 2, "height": 8}, (8, 2, 1)), ({"width": 16}, (1, 16, 1))],
)
def test_pixels_of_no_square(tmp_path: Path, keys: dict[str, int], shape: tuple[int, ...]) -> None:
    path = write(tmp_path / "train.csv", {"label": LABELS.tolist(), **pixel_columns()})
    assert csv(path, **keys).train.images.shape[1:] == shape


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda pixels: pixels / 255, "numbers from 0 to 1 became whole numbers from 0 to 255, at most"),
        (lambda pixels: pixels + 0.25 * (pixels == 7), "numbers from 0 to 255 became whole numbers"),
    ],
)
def test_pixels_from_0_to_1_and_rounded_ones(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], note: str
) -> None:
    columns = {f"pixel{place}": change(PIXELS[:, place]).tolist() for place in range(16)}
    data = csv(write(tmp_path / "train.csv", {"label": LABELS.tolist(), **columns}))
    assert np.array_equal(data.train.images, PIXELS.reshape(30, 4, 4, 1))
    assert data.notes[0].startswith(note)


def test_colour_pixels(tmp_path: Path) -> None:
    columns = {f"pixel{place}": [place] * 6 for place in range(27)}
    data = csv(write(tmp_path / "train.csv", {"label": [0, 1] * 3, **columns}))
    assert data.train.images.shape == (6, 3, 3, 3)
    assert data.train.images[0, 0, 1].tolist() == [3, 4, 5]


def test_labels_are_words_or_numbers_with_gaps(tmp_path: Path) -> None:
    words = [("cat", "dog", "10")[label] for label in LABELS]
    assert csv(write(tmp_path / "a.csv", {"class": words, **pixel_columns()})).class_names == ("10", "cat", "dog")
    gaps = [(7, 20, 3)[label] for label in LABELS]
    data = csv(write(tmp_path / "b.csv", {"class": gaps, **pixel_columns()}))
    assert data.class_names == ("3", "7", "20")
    assert data.train.labels[:3].tolist() == [1, 2, 0]


def test_files_with_other_columns(tmp_path: Path) -> None:
    names = photos(tmp_path)
    columns = {"id": [name.removesuffix(".png") for name in names], "age": [40] * 30, "label": LABELS.tolist()}
    data = csv(write(tmp_path / "train.csv", columns), images=str(tmp_path / "photos"))
    assert data.train.images.shape == (30, 5, 6, 3)
    assert data.train.names is not None
    assert data.train.names[4] == "04"


def test_pixels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    columns = dict(sorted(pixel_columns().items()))
    data = csv(write(tmp_path / "train.csv", {"label": LABELS.tolist(), **columns}))
    assert np.array_equal(data.train.images, PIXELS.reshape(30, 4, 4, 1))
    assert data.notes == ("the columns of pixels were sorted by their numbers: pixel0, pixel1, ...",)


def test_classes_may_be_named_na_and_none_and_blanks_do_not_count(tmp_path: Path) -> None:
    words = [("NA", "None", "cat", "cat  ", "nan")[place % 5] for place in range(30)]
    data = csv(write(tmp_path / "train.csv", {"label": words, "writer": words, **pixel_columns()}), group="writer")
    assert data.class_names == ("NA", "None", "cat", "nan")
    assert data.train.groups is not None
    assert len(np.unique(data.train.groups)) == 4


def test_a_comma_after_each_row(tmp_path: Path) -> None:
    rows = [f"{name},{label}," for name, label in zip(photos(tmp_path), LABELS, strict=True)]
    (tmp_path / "photos" / "train.csv").write_text("\n".join(["file,label", *rows]))
    data = csv(str(tmp_path / "photos" / "train.csv"))
    assert data.class_names == ("0", "1", "2")
    assert len(data.train) == 30


def test_groups_and_splits_of_columns(tmp_path: Path) -> None:
    part = (["train"] * 4 + ["val"] * 3 + ["Test"] * 3) * 3
    patient = [f"p{place // 2}" for place in range(30)]
    columns = {"label": LABELS.tolist(), "split": part, "patient": patient, **pixel_columns()}
    data = csv(write(tmp_path / "train.csv", columns), split="split", group="patient")
    assert data.validation is not None
    assert data.test is not None
    assert [len(one) for one in (data.train, data.validation, data.test)] == [12, 9, 9]
    assert data.train.groups is not None
    assert data.train.groups[0] == data.train.groups[1] != data.train.groups[2]


def lines(tmp_path: Path) -> dict[str, tuple[Callable[[], Dataset], str]]:
    good = {"label": LABELS.tolist(), **pixel_columns()}

    def reading(columns: dict[str, list], **keys: object) -> Callable[[], Dataset]:
        return lambda: csv(write(tmp_path / "train.csv", columns), **keys)  # type: ignore[arg-type]

    def raw(content: bytes) -> Callable[[], Dataset]:
        def read() -> Dataset:
            (tmp_path / "train.csv").write_bytes(content)
            return csv(str(tmp_path / "train.csv"))

        return read

    files = {"label": [0, 1], "file": ["a.png", "b.png"]}
    return {
        "missing": (lambda: csv(str(tmp_path / "no.csv")), "must be a CSV file (dataset.path, seen from"),
        "empty": (raw(b""), "is not a readable CSV file (No columns to parse from file)"),
        "header alone": (raw(b"label,p0,p1,p2,p3\n"), "must have rows below its header"),
        "binary": (raw(b"\x80\x81\x00PK\xff\xfe" * 50), "is not a readable CSV file"),
        "ragged": (raw(b"label,p0,p1,p2,p3\n1,2,3,4,5\n1,2,3,4,5,6,7\n"), "is not a readable CSV file"),
        "no label": (reading(pixel_columns()), "dataset.label must be given, because"),
        "other label": (reading(good, label="labels"), "dataset.label must be a column of"),
        "no file": (reading({"label": [0, 1], "age": [1, 2]}), "dataset.file must be given, because"),
        "no square": (
            reading({"label": [0, 1], **{f"pixel{n}": [1, 2] for n in range(15)}}),
            "must make an image, but 15 pixels make no square; give dataset.height and dataset.width",
        ),
        "too bright": (
            reading(good | {"pixel3": [256] * 30}),
            "must be from 0 to 1 or from 0 to 255, but got '0 to 256'",
        ),
        "infinite": (reading(good | {"pixel3": ["inf"] + [1.5] * 29}), "pixel3 must hold a number in every row"),
        "no number": (reading(good | {"pixel3": ["x"] * 30}), "pixel3 must hold a number in every row"),
        "empty cell": (reading(good | {"pixel3": [""] + [1] * 29}), "pixel3 must hold a number in every row"),
        "empty label": (reading(good | {"label": [""] + [1] * 29}), "must not be empty, but that of row 2 is"),
        "blank label": (reading(good | {"label": ["  "] + ["a"] * 29}), "must not be empty, but that of row 2 is"),
        "empty group": (
            reading(good | {"writer": ["a"] * 29 + [""]}, group="writer"),
            "writer must not be empty, but that of row 31 is; fill it in, or remove the row",
        ),
        "empty file": (reading(files | {"file": ["a.png", ""]}), "file must not be empty, but that of row 3 is"),
        "short row": (raw(b"label,file\n1\n"), "file must not be empty, but that of row 2 is"),
        "more cells": (raw(b"label,file\n1,a.png,3\n0,b.png,4\n"), "is not a readable CSV file"),
        "no such files": (reading(files), "must name files below"),
        "unknown split": (
            reading(good | {"fold": ["a"] * 30}, split="fold"),
            "must say train, val or test, but got ['a']",
        ),
        "no training": (reading(good | {"s": ["test"] * 30}, split="s"), "must say train in some rows"),
        "no group": (reading(good, group="patient"), "dataset.group must be a column of"),
    }


@pytest.mark.parametrize("case", lines(Path()))
def test_a_table_that_cannot_be_used_is_answered(case: str, tmp_path: Path) -> None:
    read, line = lines(tmp_path)[case]
    with pytest.raises(DataError) as refused:
        read()
    assert line in str(refused.value)
