"""The page in a headless browser, as somebody with a mouse uses it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
from playwright.sync_api import Page, Route, expect, sync_playwright
from services import path_of

from mnist_exp.commands.demo import predict_drawing
from mnist_exp.errors import ConfigError

RIGHT_EDGE = """canvas => {
  let right = innerWidth;  // of the window and of each box around the canvas that cuts off
  for (let box = canvas.parentElement; box; box = box.parentElement)
    if (getComputedStyle(box).overflowX !== "visible") right = Math.min(right, box.getBoundingClientRect().right);
  return right;
}"""
TWO_FINGERS = """canvas => {
  const box = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};
  const send = (kind, pointerId, x, y) => canvas.dispatchEvent(new PointerEvent(kind, {
    pointerId, clientX: box.left + x * box.width, clientY: box.top + y * box.height}));
  send("pointerdown", 1, 0.2, 0.2);
  send("pointerdown", 2, 0.8, 0.8);
  send("pointermove", 1, 0.2, 0.4);
  send("pointermove", 2, 0.8, 0.6);
  send("pointerup", 2, 0.8, 0.6);
  send("pointermove", 1, 0.2, 0.6);
  send("pointerup", 1, 0.2, 0.6);
  const red = (x, y) => canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data[0];
  return [red(0.2, 0.5), red(0.8, 0.7)];
}"""
ASKED = re.compile("component_server")
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
    assert server.stdout.readline().startswith("run  good (")
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


@pytest.mark.servers
def test_a_phone_shows_the_whole_page_and_only_the_first_finger_draws(server, browser: Page, tmp_path) -> None:
    browser.goto(server[1])
    for width in (393, 1280):
        browser.set_viewport_size({"width": width, "height": 850})
        expect(browser.locator("canvas")).to_be_visible(timeout=60_000)
        box = browser.locator("canvas").bounding_box()
        assert box
        visible = browser.locator("canvas").evaluate(RIGHT_EDGE)
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= visible + 0.5
        assert box["width"] == pytest.approx(box["height"], abs=1)
        browser.screenshot(path=tmp_path / f"{width}.png")
    ink = browser.locator("canvas").evaluate(TWO_FINGERS)
    assert ink == [0, 255]  # where the first finger drew, and where the second one was


@pytest.mark.servers
def test_an_answer_about_a_cleared_drawing_does_not_appear(server, browser: Page) -> None:
    browser.goto(server[1])
    asked: list[Route] = []
    browser.route(ASKED, lambda route: asked.append(route))
    draw(browser, SEVEN)
    browser.mouse.up()
    while not asked:
        browser.wait_for_timeout(50)
    browser.get_by_role("button", name="Clear").click()
    with browser.expect_response(ASKED):
        browser.unroute(ASKED)  # the requests that wait are sent
    browser.wait_for_timeout(1000)
    expect(browser.locator(".bar")).to_have_count(0)


@pytest.mark.parametrize("picture", [5, None, ["x"], "data:image/png;base64,abc"])
def test_a_payload_that_is_no_picture_is_refused(picture) -> None:
    with pytest.raises(ConfigError, match="the picture must be a PNG as a data URL"):
        predict_drawing(cast(Any, None), picture)


@pytest.mark.servers
def test_the_server_answers_such_a_payload_with_422_and_no_traceback(server, browser: Page) -> None:
    process, address = server
    browser.goto(address)
    sent: list[dict[str, Any]] = []
    browser.on("request", lambda made: sent.append(made.post_data_json) if "component_server" in made.url else None)
    draw(browser, SEVEN)
    browser.mouse.up()
    expect(browser.locator(".best")).to_be_visible(timeout=60_000)
    found = browser.evaluate("() => performance.getEntriesByType('resource').map(e => e.name)")
    url = next(name for name in found if "component_server" in name)
    answer = browser.request.post(url, data={**sent[0], "data": 5})
    assert (answer.status, answer.json()["detail"]) == (422, "the picture must be a PNG as a data URL")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""


def test_without_gradio_it_says_what_to_install(run_main, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    status, _, err = run_main("demo")
    assert (status, err) == (1, 'error: the demo needs gradio; install it with: pip install "mnist_exp[demo]"\n')
