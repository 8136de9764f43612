"""Draws photos of three kinds of fruit by 20 cameras: python make_photos.py photos

Each camera has a background and a light of its own and sees one kind of fruit most of the time, as a camera in an
orchard does. The kinds are unequal: apples are frequent, plums are rare.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASSES = {"apple": 0.6, "pear": 0.28, "plum": 0.12}  # share of all photos
COLOURS = {"apple": (176, 62, 44), "pear": (150, 150, 54), "plum": (96, 60, 112)}
WIDTH, HEIGHT = 80, 64


def photo(label: str, camera: int, rng: np.random.Generator) -> Image.Image:
    """One fruit before the background of its camera."""
    place = np.random.default_rng(camera)  # the same for all photos of a camera
    sky, ground = place.integers(60, 200, (2, 3))
    mixed = np.linspace(0, 1, HEIGHT)[:, None, None]
    pixels = (1 - mixed) * sky + mixed * ground + 18 * np.sin(np.arange(WIDTH) / place.uniform(2, 9))[None, :, None]
    image = Image.fromarray(np.clip(pixels + rng.normal(0, 9, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8))
    radius = rng.uniform(9, 17)
    x, y = rng.uniform(radius + 4, WIDTH - radius - 4), rng.uniform(radius + 8, HEIGHT - radius - 2)
    colour = tuple(int(value) for value in np.clip(np.array(COLOURS[label]) + rng.normal(0, 30, 3), 0, 255))
    draw = ImageDraw.Draw(image)
    wide, tall = {"apple": (1.0, 0.95), "pear": (0.8, 1.0), "plum": (0.72, 0.9)}[label]
    draw.ellipse((x - wide * radius, y - tall * radius, x + wide * radius, y + tall * radius), fill=colour)
    if label == "pear":
        draw.ellipse((x - radius / 2, y - 1.6 * radius, x + radius / 2, y), fill=colour)
    draw.line((x, y - tall * radius, x + 3, y - tall * radius - 6), fill=(70, 50, 30), width=2)
    light = place.uniform(0.75, 1.2, 3)
    lit = np.clip(np.asarray(image) * light, 0, 255).astype(np.uint8)
    return Image.fromarray(lit).filter(ImageFilter.GaussianBlur(0.8))


def draw_photos(folder: Path, count: int = 600, cameras: range = range(20), seed: int = 0) -> None:
    """Writes photos/apple/camera_07_0123.jpg and so on."""
    rng, names = np.random.default_rng(seed), list(CLASSES)
    usual = {camera: np.random.default_rng(camera).choice(names, p=list(CLASSES.values())) for camera in cameras}
    for number in range(count):
        camera = int(rng.choice(list(cameras)))
        label = str(usual[camera] if rng.random() < 0.7 else rng.choice(names, p=list(CLASSES.values())))
        (folder / label).mkdir(parents=True, exist_ok=True)
        photo(label, camera, rng).save(folder / label / f"camera_{camera:02d}_{number:04d}.jpg", quality=88)


if __name__ == "__main__":
    draw_photos(Path(sys.argv[1] if len(sys.argv) > 1 else "photos"))
