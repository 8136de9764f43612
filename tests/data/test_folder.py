from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_exp.data import folder
from mnist_exp.data.splits import Splits
from mnist_exp.errors import DataError

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def put(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def fill(root: Path, classes: dict[str, int]) -> str:
    """So many different images of various sizes in each class."""
    for shade, (name, count) in enumerate(classes.items()):
        for number in range(count):
            put(root / name / f"{number}.png", Image.new("L", (8 + number, 12), shade * 100 + number))
    return str(root)


def read(root: Path, image: Image.Image, suffix: str, channels: int) -> np.ndarray:
    """This image as the data set delivers it, 16x16, beside another class."""
    put(root / "a" / f"image{suffix}", image)
    put(root / "b" / "image.png", Image.new("L", (1, 1)))
    return folder(str(root), 16, 16, channels).train.images[0]


def refusal(root: Path, channels: int = 1) -> str:
    with pytest.raises(DataError) as caught:
        folder(str(root), 6, 5, channels)
    return str(caught.value)


def test_class_folders(load: Callable[..., Splits], tmp_path: Path) -> None:
    path = fill(tmp_path / "photos", {"dog": 10, "cat": 20})
    splits = load("dataset=folder", f"dataset.path={path}", "dataset.height=6", "dataset.width=5")
    assert splits.class_names == ("cat", "dog")
    assert splits.image_shape == (6, 5, 1)
    assert [len(part) for part in splits.parts.values()] == [19, 5, 6]
    assert np.bincount(splits.test.labels).tolist() == [4, 2]
    assert splits.description == "photos, 30 images in 2 folders"


@pytest.mark.parametrize("with_test", [True, False])
def test_halves(load: Callable[..., Splits], tmp_path: Path, with_test: bool) -> None:
    fill(tmp_path / "train", {"dog": 10, "cat": 10})
    if with_test:
        put(tmp_path / "test/cat/1.png", Image.new("L", (7, 7), 250))
        put(tmp_path / "test/dog/1.png", Image.new("L", (7, 7), 251))
    splits = load("dataset=folder", f"dataset.path={tmp_path}")
    assert splits.class_names == ("cat", "dog")
    assert [len(part) for part in splits.parts.values()] == ([16, 4, 2] if with_test else [13, 3, 4])
    if with_test:
        assert splits.test.images[:, 0, 0, 0].tolist() == [250, 251]


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 2, "dog": 3})
    (tmp_path / "README.md").write_text("photos")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("a cat")
    (tmp_path / "cat" / "._1.png").write_text("what macOS leaves beside an image")
    (tmp_path / "cat" / "more.png").mkdir()
    put(tmp_path / "cat" / "more.png" / "3.PNG", Image.new("L", (3, 3)))
    source = folder(str(tmp_path), 6, 5, 1)
    assert source.class_names == ("cat", "dog")
    assert np.bincount(source.train.labels).tolist() == [3, 3]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", ".png"), ("L", ".PGM"), ("LA", ".png"), ("RGB", ".bmp"), ("RGBA", ".webp"), ("P", ".gif")],
)
def test_grey_pixels_arrive_as_they_are_whatever_the_mode(
    tmp_path: Path, mode: str, suffix: str, channels: int
) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / f"image{suffix}", lossless=True)  # a word to WebP alone
    put(tmp_path / "b" / "image.png", Image.new("L", (1, 1)))
    found = folder(str(tmp_path), 16, 16, channels).train.images[0]
    assert np.array_equal(found, np.repeat(RAMP[..., None], channels, axis=-1))


@pytest.mark.parametrize(
    ("mode", "suffix", "colour"),
    [("RGB", ".png", (200, 30, 60)), ("RGBA", ".png", (200, 30, 60, 255)), ("CMYK", ".tif", (55, 225, 195, 0))],
)
def test_colours(tmp_path: Path, mode: str, suffix: str, colour: tuple[int, ...]) -> None:
    image = Image.new(mode, (5, 9), colour)
    assert (read(tmp_path / "colour", image, suffix, 3) == [200, 30, 60]).all()
    assert (read(tmp_path / "grey", image, suffix, 1) == 84).all()  # ITU-R 601: .299 red, .587 green, .114 blue


def test_palettes_and_black_and_white(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 30, 60])
    assert (read(tmp_path / "palette", palette, ".png", 3) == [200, 30, 60]).all()
    assert (read(tmp_path / "white", Image.new("1", (4, 4), 1), ".png", 1) == 255).all()


@pytest.mark.parametrize(("mode", "colour"), [("LA", (0, 0)), ("RGBA", (9, 9, 9, 0))])
def test_transparent_pixels_become_white(tmp_path: Path, mode: str, colour: tuple[int, ...]) -> None:
    assert (read(tmp_path, Image.new(mode, (4, 4), colour), ".png", 1) == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled_to_8(tmp_path: Path, suffix: str) -> None:
    wide = RAMP.astype(np.uint16) * 257
    assert np.array_equal(read(tmp_path, Image.fromarray(wide), suffix, 1)[..., 0], RAMP)


def test_16_bits_of_a_dark_image_stay_dark(tmp_path: Path) -> None:
    assert (read(tmp_path, Image.fromarray(np.full((4, 4), 514, np.uint16)), ".png", 1) == 2).all()


def test_16_bits_of_the_other_byte_order(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", (16, 16), (RAMP.astype(">u2") * 257).tobytes())
    assert np.array_equal(read(tmp_path, image, ".tif", 1)[..., 0], RAMP)


@pytest.mark.parametrize(
    "pixels",
    [
        RAMP.astype(np.int32),
        RAMP.astype(np.int32) * 257,
        RAMP.astype(np.int32) * 1000 - 5000,
        (RAMP / 255).astype(np.float32),
        RAMP.astype(np.float32),
        RAMP.astype(np.float32) * 257,
        (RAMP / 127.5 - 1).astype(np.float32),
    ],
)
def test_32_bits_are_scaled_by_the_range_they_use(tmp_path: Path, pixels: np.ndarray) -> None:
    assert np.array_equal(read(tmp_path, Image.fromarray(pixels), ".tif", 1)[..., 0], RAMP)


def test_a_constant_image_beyond_the_usual_ranges_is_black(tmp_path: Path) -> None:
    assert (read(tmp_path, Image.fromarray(np.full((4, 4), -3, np.float32)), ".tif", 1) == 0).all()


def test_pixels_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 1, "dog": 1})
    put(tmp_path / "cat" / "nan.tif", Image.fromarray(np.full((4, 4), np.nan, np.float32)))
    (note,) = folder(str(tmp_path), 6, 5).notes
    assert note == f"not used: 1 file ({tmp_path / 'cat' / 'nan.tif'}); the first must be finite numbers"


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (300, 2), (16, 16)])
def test_any_size_is_resized(tmp_path: Path, size: tuple[int, int]) -> None:
    found = read(tmp_path, Image.new("RGB", size, (10, 20, 30)), ".png", 3)
    assert found.shape == (16, 16, 3)
    assert (found == [10, 20, 30]).all()


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # held upside down
    (tmp_path / "a").mkdir()
    Image.fromarray(RAMP).save(tmp_path / "a" / "1.png", exif=exif)
    put(tmp_path / "b" / "1.png", Image.new("L", (1, 1)))
    assert np.array_equal(folder(str(tmp_path), 16, 16, 1).train.images[0, ..., 0], RAMP[::-1, ::-1])


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path / "photos")
    assert f"{tmp_path / 'photos'} does not exist (dataset.path, seen from {Path.cwd()}); " in message
    assert "dataset=digits" in message


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(b"")
    message = refusal(tmp_path / "mine.npz")
    assert "mine.npz must be a folder of images, but is a file; read npz files with dataset=npz" in message


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "1.png", Image.new("L", (4, 4)))
    assert f"{tmp_path} has no subfolders; sort" in refusal(tmp_path)


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "1.heic").write_bytes(b"")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / 'owl'} has no image (.bmp, .gif, ")
    assert message.endswith("; add one, or remove the folder")


def test_one_class_is_refused(load: Callable[..., Splits], tmp_path: Path) -> None:
    fill(tmp_path / "photos", {"cat": 9})
    with pytest.raises(DataError, match=r"photos, 9 images .* at least 2 classes, but got \['cat'\]; add a class"):
        load("dataset=folder", f"dataset.path={tmp_path / 'photos'}")


def test_a_class_of_the_test_half_alone_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"cat": 2, "dog": 2})
    fill(tmp_path / "test", {"cat": 2, "dog": 2, "owl": 2})
    rule = f"{tmp_path / 'test'} must have the classes of {tmp_path / 'train'}, but got ['owl']; "
    assert refusal(tmp_path) == rule + "remove what is not in train"


def test_a_class_may_be_missing_in_the_test_half(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"cat": 2, "dog": 2})
    fill(tmp_path / "test", {"cat": 2})
    data = folder(str(tmp_path))
    assert data.test is not None
    assert data.class_names == ("cat", "dog")
    assert data.test.labels.tolist() == [0, 0]


@pytest.mark.parametrize(
    "content", [b"", b"a cat, in words", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0", b"BM"]
)
def test_an_unreadable_image_is_left_out_and_named(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, {"cat": 2, "dog": 2})
    broken = tmp_path / "dog" / "broken.png"
    broken.write_bytes(content)
    data = folder(str(tmp_path), 6, 5)
    assert len(data.train) == 4
    (note,) = data.notes
    assert note.startswith(f"not used: 1 file ({broken}); the first is no")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp", ".tif", ".bmp", ".ppm"])
def test_a_truncated_image_is_left_out_wherever_it_is_cut(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    fill(tmp_path, {"cat": 1, "dog": 1})
    put(tmp_path / "cat" / f"cut{suffix}", Image.fromarray(noise))
    path = tmp_path / "cat" / f"cut{suffix}"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 20, 5):  # the last bytes of a PNG hold no pixels
        path.write_bytes(whole[:length])
        data = folder(str(tmp_path), 6, 5)
        assert len(data.train) == 2
        (note,) = data.notes
        assert note.startswith(f"not used: 1 file ({path}); the first is no")


def test_an_image_too_large_to_be_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"cat": 2, "dog": 2})
    put(tmp_path / "cat" / "huge.png", Image.new("L", (40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    (note,) = folder(str(tmp_path), 6, 5).notes
    assert "huge.png); the first is no kind of image that Pillow knows" in note or "(Image size (1600 pixels)" in note


def test_a_class_whose_images_cannot_be_read_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 2, "dog": 0})
    (tmp_path / "dog").mkdir(exist_ok=True)
    (tmp_path / "dog" / "1.png").write_bytes(b"no image")
    assert refusal(tmp_path).endswith("dog must hold an image that can be read; convert its images to PNG")


def test_size_and_colour_are_those_of_the_images(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "cat" / f"{number}.png", Image.new("RGB", (20, 12), (number * 40, 20, 90)))
        put(tmp_path / "dog" / f"{number}.png", Image.new("L", (20, 12), number))
    data = folder(str(tmp_path))
    assert data.train.images.shape == (6, 12, 20, 3)
    assert data.notes == ()


def test_grey_images_that_were_saved_in_colour_are_grey(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        put(tmp_path / name / "1.png", Image.fromarray(RAMP).convert("RGB"))
    data = folder(str(tmp_path))
    assert np.array_equal(data.train.images[0, ..., 0], RAMP)
    assert data.train.images.shape[-1] == 1
    assert data.notes == ("saved in colour, but all of them are grey: kept as grey images",)


def test_images_of_several_sizes_get_a_middle_one(tmp_path: Path) -> None:
    for place, size in enumerate([(300, 200), (320, 240), (400, 300)]):
        for name in ("cat", "dog"):
            put(tmp_path / name / f"{place}.png", Image.new("L", size, place))
    data = folder(str(tmp_path))
    assert data.train.images.shape[1:3] == (96, 128)
    (note,) = data.notes
    assert note == "sizes from 200x300 to 300x400: resized to 96x128, unless dataset.height and width are given"


@pytest.mark.parametrize(("given", "shape"), [((24, None), (24, 40)), ((None, 20), (12, 20)), ((5, 7), (5, 7))])
def test_one_side_gives_the_other(given: tuple[int | None, int | None], shape: tuple[int, int], tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        put(tmp_path / name / "1.png", Image.new("L", (100, 60)))
    assert folder(str(tmp_path), *given).train.images.shape[1:3] == shape


@pytest.mark.parametrize(("fit", "corner", "middle"), [("pad", 255, 0), ("stretch", 0, 0), ("crop", 0, 0)])
def test_other_proportions(fit: str, corner: int, middle: int, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        put(tmp_path / name / "1.png", Image.new("L", (30, 10), 0))
    image = folder(str(tmp_path), 20, 20, fit=fit).train.images[0]
    assert (image[0, 0, 0], image[10, 10, 0]) == (corner, middle)


def test_validation_nested_and_loose_images(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        fill(tmp_path / split, {"cat": 2, "dog": 3})
    put(tmp_path / "train" / "dog" / "puppies" / "small.png", Image.new("L", (8, 12), 7))
    put(tmp_path / "cover.png", Image.new("L", (8, 12)))
    data = folder(str(tmp_path), 12, 8)
    assert data.validation is not None
    assert data.test is not None
    assert [len(part) for part in (data.train, data.validation, data.test)] == [6, 5, 5]
    assert data.notes == (
        "1 image (cover.png) in no folder of a class: not used",
        "1 folder (puppies) below dog: their images are of class dog",
    )


def test_folders_behind_symlinks_are_read_once(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    fill(root, {"cat": 2, "dog": 2})
    put(tmp_path / "elsewhere" / "1.png", Image.new("L", (8, 12), 77))
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "above").symlink_to(root / "cat")
    data = folder(str(root), 12, 8)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.notes == ("1 folder (more) below cat: their images are of class cat",)


def test_kinds_of_images_and_hidden_folders(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 2, "dog": 2})
    Image.new("L", (8, 12), 77).save(tmp_path / "cat" / "9.jfif", "JPEG")
    put(tmp_path / "dog" / ".thumbs" / "1.png", Image.new("L", (8, 12), 78))
    (tmp_path / "dog" / "7.heic").write_bytes(b"")
    (tmp_path / "dog" / "notes.txt").write_text("a dog")
    data = folder(str(tmp_path), 12, 8)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.notes == (
        "not used: 1 hidden folder (dog/.thumbs) with images",
        "not used: 1 image (dog/7.heic) of other kinds (.heic)",
    )


def test_folders_beside_the_splits_are_named(tmp_path: Path) -> None:
    for split in ("train", "dev", "other"):
        fill(tmp_path / split, {"cat": 2, "dog": 3})
    assert folder(str(tmp_path), 12, 8).notes == (
        "not used: 2 folders (dev, other) beside the splits; these are named "
        "train, training, val, valid, validation, test, testing",
    )


def test_groups_are_named_by_paths(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for camera in range(3):
            put(tmp_path / name / f"camera{camera}_1.png", Image.new("L", (8, 8), camera))
    data = folder(str(tmp_path), group="camera([0-9])")
    assert data.train.groups is not None
    assert data.train.groups.tolist() == [0, 1, 2, 0, 1, 2]


def test_images_that_do_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    fill(tmp_path, {"cat": 2, "dog": 2})
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100))
    assert refusal(tmp_path).startswith(f"{tmp_path} must fit into memory: 4 images of 6x5x1 take 0.0 GiB, but got")
