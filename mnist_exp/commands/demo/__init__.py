"""python -m mnist_exp demo: draw a digit in the browser and see what a stored model says, as you draw."""

import os
import threading

import click

from mnist_exp.commands.options import HOST, usable, with_tracking
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import ConfigError
from mnist_exp.log import chatter_in_log
from mnist_exp.signals import Terminated, terminable
from mnist_exp.tracking.store import existing_store


@click.command(help=__doc__)
@click.option("--run", default="best", show_default=True, help="An id, name, latest, best or models:/NAME@ALIAS.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any that is free.")
@with_tracking
def command(run: str, port: int, tracking: Tracking) -> None:
    """Serves the page on 127.0.0.1 until Ctrl-C."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it would call home
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ConfigError('the demo needs gradio: pip install "mnist_exp[demo]"') from error
    from mnist_exp.commands.demo.page import page
    from mnist_exp.commands.predict import Predictor

    with chatter_in_log():
        predictor = Predictor.of(existing_store(tracking), run)
    port = usable(port)
    app = page(predictor)
    try:
        with terminable():
            with chatter_in_log():
                app.launch(server_name=HOST, server_port=port, footer_links=[], quiet=True, prevent_thread_lock=True)
            click.echo(f"http://{HOST}:{port}  Ctrl-C ends")
            threading.Event().wait()
    except KeyboardInterrupt:
        return
    except Terminated as stop:
        raise SystemExit(143) from stop
    finally:
        app.close(verbose=False)
