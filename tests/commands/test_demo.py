"""The page in a headless browser, as somebody with a mouse uses it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from services import path_of

SEVEN = (0.25, 0.2), (0.75, 0.2), (0.45, 0.8)  # corners of its stroke, as shares of the canvas


@pytest.fixture
def server(runs) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in the folder of the runs, and the address it said."""
    command = [sys.executable, "-m", "mnist_exp", "demo", "--run", "good", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "MLFLOW_TRACKING_URI": ""}
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, cwd=runs[0], stdout=pipe, stderr=pipe, text=True, env=environment)
    assert server.stdout
    assert server.stderr
    said = server.stdout.readline()
    assert said.endswith("  Ctrl-C ends\n"), server.stderr.read()
    yield server, said.split()[0]
    server.kill()
    server.wait()


@pytest.fixture
def browser() -> Iterator[Page]:
    chromium = path_of("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1100, "height": 800})
        browser.close()


def draw(page: Page, corners: tuple[tuple[float, float], ...]) -> None:
    """One stroke over the canvas."""
    canvas = page.locator("canvas")
    expect(canvas).to_be_visible(timeout=60_000)
    box = canvas.bounding_box()
    assert box
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=20)


@pytest.mark.servers
def test_a_seven_is_read_as_it_is_drawn_and_ctrl_c_ends_it(server, browser: Page) -> None:
    process, address = server
    assert address.startswith("http://127.0.0.1:")
    browser.goto(address)
    draw(browser, SEVEN)
    expect(browser.locator(".best")).to_have_text("7", timeout=60_000)  # with the mouse still down
    browser.mouse.up()
    expect(browser.locator(".bars [role=listitem]")).to_have_text([str(digit) for digit in range(10)])
    read = "bars => [...bars.querySelectorAll('.bar')].map(bar => parseFloat(bar.style.width))"
    widths = browser.locator(".bars").evaluate(read)  # all at once, since answers still come in
    assert sum(widths) == pytest.approx(100, abs=0.1)
    assert browser.locator("img").evaluate("tile => [tile.naturalWidth, tile.naturalHeight]") == [8, 8]
    browser.get_by_role("button", name="Clear").click()
    expect(browser.locator(".bar")).to_have_count(0)
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=60)
    assert (process.returncode, rest, said) == (0, "", "")


def test_without_gradio_it_says_what_to_install(run_main, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    status, _, err = run_main("demo")
    assert (status, err) == (1, 'error: the demo needs gradio; install it with: pip install "mnist_exp[demo]"\n')
