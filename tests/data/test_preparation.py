import math

import numpy as np
import pytest
from drawings import drawings
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits, load_sample_image

from mnist_exp.data.preparation import prepare
from mnist_exp.errors import DataError

SHAPE = (28, 28, 1)


def stroke(size=(200, 200), paper="white", ink="black", box=(60, 40, 110, 160), width=16, mode="RGB") -> Image.Image:
    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).ellipse(box, outline=ink, width=width)
    return image


def tile(image: Image.Image, recipe="mnist", shape=SHAPE) -> np.ndarray:
    return prepare(image.convert("RGBA"), recipe, shape).pixels


def alike(some: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two tiles; thin lines that lie half a pixel apart still have 0.88."""
    return float(np.corrcoef(some.ravel(), other.ravel())[0, 1])


def test_a_tile_has_mnists_box_and_centre_of_mass():
    found = tile(stroke())
    rows, columns = (np.flatnonzero((found[..., 0] > 40).any(axis=axis)) for axis in (1, 0))
    assert found.dtype == np.uint8
    assert found.shape == SHAPE
    assert 19 <= rows[-1] - rows[0] + 1 <= 20
    assert columns[-1] - columns[0] + 1 < 14
    mass = found[..., 0] / found.sum()
    assert abs((mass.sum(axis=1) * np.arange(28)).sum() - 13.5) < 0.6
    assert abs((mass.sum(axis=0) * np.arange(28)).sum() - 13.5) < 0.6
    assert found[[0, -1]].max() == found[:, [0, -1]].max() == 0


@pytest.mark.parametrize(
    "image",
    [
        stroke(paper="black", ink="white"),
        stroke(paper="navy", ink="yellow"),
        stroke(paper="yellow", ink="navy"),
        stroke(paper="red", ink="green"),
        stroke(paper=(0, 0, 0, 0), ink="black", mode="RGBA"),
        stroke(paper=(0, 0, 0, 0), ink="white", mode="RGBA"),
        stroke(size=(900, 300), box=(610, 40, 660, 160)),
        stroke(size=(2000, 2000), box=(600, 400, 1100, 1600), width=160),
    ],
    ids=["inverted", "light on dark", "dark on light", "equally light", "black alpha", "white alpha", "aside", "large"],
)
def test_colour_polarity_place_and_size_make_no_difference(image):
    assert alike(tile(image), tile(stroke())) > 0.87


def test_thin_and_thick_strokes_come_near_those_of_mnist():
    usual, thin, thick = (tile(stroke(width=width)) for width in (14, 2, 24))
    assert (thin > 128).sum() > 0.6 * (usual > 128).sum()
    assert (tile(stroke(width=30)) > 128).sum() <= (thick > 128).sum() * 1.3


def test_uneven_light_leaves_no_trace():
    light = np.linspace(1, 0.45, 200)[None, :, None]
    shaded = Image.fromarray((np.asarray(stroke(ink=(40, 40, 40))) * light).astype(np.uint8))
    assert alike(tile(shaded), tile(stroke())) > 0.95


def test_specks_and_the_edge_of_the_table_are_left_out():
    image = stroke()
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 190, 200, 200), fill="black")
    for x, y in ((20, 20), (180, 90), (150, 30)):
        pen.ellipse((x, y, x + 3, y + 3), fill="black")
    assert alike(tile(image), tile(stroke())) > 0.87


@pytest.mark.parametrize("colour", ["white", "black", "red", (0, 0, 0, 0)])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (300, 200)])
def test_an_empty_image_is_refused(colour, size):
    with pytest.raises(DataError, match="must show something"):
        tile(Image.new("RGBA", size, colour))


@pytest.mark.parametrize("seed", range(20))
def test_any_noise_of_any_size_is_a_tile_or_refused(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(math.exp(rng.uniform(0, 6))) for _ in range(2))
    image = Image.fromarray(rng.integers(0, 256, (*size, 4), dtype=np.uint8), "RGBA")
    try:
        assert tile(image).shape == SHAPE
    except DataError as error:
        assert "must show something" in str(error)  # noqa: PT017


def test_noise_is_not_called_an_empty_page():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="must show something that stands out from its background, but it is too noisy"):
        tile(Image.fromarray(noise))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", ["flower.jpg", "china.jpg"])
def test_a_photo_of_something_else_is_not_like_a_digit(name, mode):
    photo = Image.fromarray(load_sample_image(name)).convert(mode).convert("RGBA")
    assert prepare(photo, "mnist", SHAPE).doubt == "not like a digit"
    assert prepare(photo, "resize", (28, 28, 3)).doubt == ""


def test_digits_of_many_kinds_are_like_digits():
    assert [prepare(one.image.convert("RGBA"), "mnist", SHAPE).doubt for one in drawings(100)] == [""] * 100
    thin = Image.fromarray(np.pad(load_digits().images[0] * 15, 8).astype(np.uint8))
    assert prepare(thin.convert("RGBA"), "digits", (8, 8, 1)).doubt == ""


def test_other_data_sets_are_only_resized():
    image = stroke(paper="red", ink="blue")
    found = tile(image, "resize", (10, 12, 3))
    assert found.shape == (10, 12, 3)
    assert found[0, 0].tolist() == [255, 0, 0]
    assert tile(Image.new("RGB", (5, 5), "white"), "resize", (4, 4, 1)).tolist() == np.full((4, 4, 1), 255).tolist()


def test_every_drawing_becomes_a_tile():
    made = [tile(drawing.image) for drawing in drawings(80)]
    assert min(int((one > 128).sum()) for one in made) > 15
