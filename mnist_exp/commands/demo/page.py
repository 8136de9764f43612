"""The page of the demo: a canvas and the prediction for it. page.html, page.css and page.js are its parts."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_exp.data.images import read_image
from mnist_exp.errors import DataError

if TYPE_CHECKING:
    from mnist_exp.commands.predict import Predictor

BARS = 10  # classes that are shown at the most


def create_page(predictor: "Predictor") -> Any:
    """Returns the page as a gradio app: a canvas, the tile that the model sees, and a bar for each class."""
    import gradio

    def answer(picture: str) -> dict[str, Any] | None:
        return predict_drawing(predictor, picture)

    html, css, script = (Path(__file__).with_name(f"page.{kind}").read_text() for kind in ("html", "css", "js"))
    with gradio.Blocks(title="mnist_exp", analytics_enabled=False) as app:
        gradio.HTML(
            predictor.run.label, html_template=html, css_template=css, js_on_load=script, server_functions=[answer]
        )
    return app


def predict_drawing(predictor: "Predictor", picture: str) -> dict[str, Any] | None:
    """Returns the tile and the most probable classes in their order; None for an empty canvas.

    picture, tile: PNG as data URLs.
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
