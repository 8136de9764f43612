"""A page on which digits are drawn and answered as they grow; page.html, page.css and page.js are what it shows."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_exp.data.images import read_image
from mnist_exp.errors import DataError

if TYPE_CHECKING:
    from mnist_exp.commands.predict import Predictor

BARS = 10  # the most classes shown


def page(predictor: "Predictor") -> Any:
    """The page as a gradio app: a canvas, the tile the model sees of it, and a bar for each class."""
    import gradio

    def answer(picture: str) -> dict[str, Any] | None:
        return answered(predictor, picture)

    html, css, script = (Path(__file__).with_name(f"page.{kind}").read_text() for kind in ("html", "css", "js"))
    with gradio.Blocks(title="mnist_exp", analytics_enabled=False) as app:
        gradio.HTML(predictor.name, html_template=html, css_template=css, js_on_load=script, server_functions=[answer])
    return app


def answered(predictor: "Predictor", picture: str) -> dict[str, Any] | None:
    """The tile, as a PNG, and the most probable classes in their order; None of an empty canvas.

    picture, tile: as data URLs.
    """
    try:
        tile = predictor.tile(read_image(io.BytesIO(base64.b64decode(picture.partition(",")[2])), "the drawing"))
    except DataError:
        return None
    shares = predictor.probabilities(tile)
    least = sorted(shares.values(), reverse=True)[:BARS][-1]
    return {"tile": _url(tile), "classes": [[name, share] for name, share in shares.items() if share >= least][:BARS]}


def _url(tile: np.ndarray) -> str:
    from PIL import Image

    stored = io.BytesIO()
    Image.fromarray(tile.squeeze()).save(stored, "png")
    return f"data:image/png;base64,{base64.b64encode(stored.getvalue()).decode()}"
