"""python -m mnist_exp demo: draw a digit in the browser and see what a stored model predicts, as you draw."""

import os
import threading

import click

from mnist_exp.commands.options import HOST, choose_port, port_option, run_option, with_store
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.log import hide_library_output
from mnist_exp.signals import Terminated, raise_on_sigterm
from mnist_exp.tracking.store import Store


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
    from mnist_exp.commands.demo.page import create_page
    from mnist_exp.commands.predict import Predictor

    with hide_library_output():
        predictor = Predictor.load(store, run)
    port = choose_port(port)
    app = create_page(predictor)
    try:
        with raise_on_sigterm():
            with hide_library_output():
                app.launch(server_name=HOST, server_port=port, footer_links=[], quiet=True, prevent_thread_lock=True)
            click.echo(f"http://{HOST}:{port}  Ctrl-C ends")
            threading.Event().wait()
    except KeyboardInterrupt:
        return
    except Terminated as stop:
        raise SystemExit(143) from stop
    finally:
        app.close(verbose=False)
