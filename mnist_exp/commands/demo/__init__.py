"""python -m mnist_exp demo: draw a digit in the browser and see what a stored model predicts, as you draw."""

import base64
import io
import os
import threading
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from mnist_exp.commands.options import (
    HOST,
    choose_port,
    port_option,
    print_found,
    run_option,
    until_stopped,
    with_store,
)
from mnist_exp.commands.predict import Predictor
from mnist_exp.data.images import read_image
from mnist_exp.errors import ConfigError, DataError, Problem
from mnist_exp.log import hide_library_output
from mnist_exp.tracking.find import find_finished
from mnist_exp.tracking.store import Store

BARS = 10  # classes that are shown at the most


def create_page(predictor: Predictor, label: str) -> Any:
    """Returns the page as a gradio app: a canvas, the tile that the model sees, and a bar for each class.

    label: describes the model. page.html, page.css and page.js are its parts.
    """
    import gradio
    from fastapi import HTTPException

    def answer(picture: str) -> dict[str, Any] | None:
        try:
            return predict_drawing(predictor, picture)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error

    html, css, script = (Path(__file__).with_name(f"page.{kind}").read_text() for kind in ("html", "css", "js"))
    with gradio.Blocks(title="mnist_exp", analytics_enabled=False) as app:
        gradio.HTML(label, html_template=html, css_template=css, js_on_load=script, server_functions=[answer])
    return app


def predict_drawing(predictor: Predictor, picture: str) -> dict[str, Any] | None:
    """Returns the tile and the most probable classes in their order; None for an empty canvas.

    picture, tile: PNG as data URLs. Raises ConfigError if the picture is not one.
    """
    try:
        content = base64.b64decode(picture.partition(",")[2])
    except (AttributeError, ValueError) as error:  # not text, or not base64
        raise ConfigError(Problem("the picture", "must be a PNG as a data URL")) from error
    try:
        tile = predictor.tile(read_image(io.BytesIO(content), "the drawing"))
    except DataError:
        return None
    shares = predictor.probabilities(tile)
    least = sorted(shares.values(), reverse=True)[:BARS][-1]
    classes = [[name, share] for name, share in shares.items() if share >= least][:BARS]
    return {"tile": _url(tile.pixels), "classes": classes}


def _url(tile: np.ndarray) -> str:
    stored = io.BytesIO()
    Image.fromarray(tile.squeeze()).save(stored, "png")
    return f"data:image/png;base64,{base64.b64encode(stored.getvalue()).decode()}"


@click.command(help=__doc__)
@run_option
@port_option(7860)
@with_store
def command(run: str, port: int, store: Store) -> None:
    """Serves the page on 127.0.0.1 until Ctrl-C."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it would call home
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        remedy = 'install it with: pip install "mnist_exp[demo]"'
        raise ConfigError(Problem("the demo", "needs gradio", remedy=remedy)) from error
    with hide_library_output():
        found = find_finished(store, run)
    print_found(found)
    with hide_library_output():
        predictor = Predictor.load_run(store, found.run)
    port = choose_port(port)
    app = create_page(predictor, f"{found.run.label}, {found.dataset}")
    try:
        with until_stopped():
            with hide_library_output():
                app.launch(server_name=HOST, server_port=port, footer_links=[], quiet=True, prevent_thread_lock=True)
            click.echo(f"http://{HOST}:{port}  Ctrl-C ends")
            threading.Event().wait()
    finally:
        app.close(verbose=False)
