"""What several tests share."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import processes
import pytest
from hydra.core.global_hydra import GlobalHydra
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mnist_exp.cli import main
from mnist_exp.tracking.sqlite import create_database

GROUP_TWO = ("servers", "slow")  # the markers in pyproject.toml
SAVE, LAY_OUT = Figure.savefig, ConstrainedLayoutEngine.execute
LEFT_OUT = "it needs a server, a browser or minutes"


def pytest_configure(config: pytest.Config) -> None:
    """Lets processes that the tests start answer Ctrl-C, also if a shell has started pytest in the background.

    Compiled programs are kept for the next tests, and not in the user's own cache folder.
    """
    os.environ["XDG_CACHE_HOME"] = str(config.rootpath / ".pytest_cache" / "user")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the second group of tests, unless `-m` chooses tests by their markers."""
    if not config.getoption("-m"):
        for item in items:
            if any(item.get_closest_marker(name) for name in GROUP_TWO):
                item.add_marker(pytest.mark.skip(reason=LEFT_OUT))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how to run what was left out."""
    skipped = terminalreporter.getreports("skipped")
    if count := sum(LEFT_OUT in str(report.longrepr) for report in skipped):
        terminalreporter.write_sep("=", "second group")
        terminalreporter.write_line(f'{count} tests were left out. Run them with: pytest -m "servers or slow"')
        terminalreporter.write_line("They need Debian's packages postgresql, slurm-wlm and chromium.")


@pytest.fixture(scope="session", autouse=True)
def _fork_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    processes.Process.folder = tmp_path_factory.mktemp("processes")
    if len({item.path for item in request.session.items}) > 1:  # else the first process starts it, if there is one
        processes.start_server()
    yield
    processes.kill_all()


@pytest.fixture(scope="session", autouse=True)
def _figures_of_one_pixel() -> Iterator[None]:
    """Rendering takes most of a short run. Workers of executor=local and processes of another interpreter render."""
    with pytest.MonkeyPatch.context() as patch:
        processes.render_one_pixel(patch.setattr)
        yield


@pytest.fixture
def rendered_figures() -> Iterator[None]:
    """For the tests of what figures look like."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", SAVE)
        patch.setattr(ConstrainedLayoutEngine, "execute", LAY_OUT)
        yield


@pytest.fixture(autouse=True)
def _own_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with _forgetting_modules_below(tmp_path_factory.getbasetemp()):
        yield


@contextmanager
def _forgetting_modules_below(folder: Path) -> Iterator[None]:
    """The modules of a user that are imported meanwhile are imported anew by the next test: many share a name."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name].__spec__, "origin", None)
            if origin and Path(origin).is_relative_to(folder):
                del sys.modules[name]


@pytest.fixture(scope="session")
def real_mnist() -> Path:
    """All 70,000 images, where the checkout lies beside them."""
    path = Path(__file__).parents[2] / "shared/data/mnist.npz"
    if not path.is_file():
        pytest.skip("the real MNIST is not here")
    return path


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as it was created, not to be written."""
    database = tmp_path_factory.mktemp("new") / "mlflow.db"
    create_database(database)
    return database


@pytest.fixture(scope="session")
def main_in() -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process, in the folder given first: exit status, standard output and error.

    Fixtures of a wider scope than a test use it; a test uses run_main, which also catches what libraries print.
    """

    def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            status = _main(folder, arguments, patch)
        return status, out.getvalue(), err.getvalue()

    return run


def _main(folder: Path, arguments: tuple[str, ...], patch: pytest.MonkeyPatch) -> int:
    patch.chdir(folder)
    patch.setattr(sys, "argv", ["mnist-exp", *arguments])
    patch.setattr(sys, "path", [*sys.path])
    patch.setenv("HYDRA_FULL_ERROR", "")
    patch.setenv("MLFLOW_TRACKING_URI", "")
    try:
        with _forgetting_modules_below(folder):
            return main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        GlobalHydra.instance().clear()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder in which run_main works."""
    return tmp_path


@pytest.fixture
def run_main(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process: exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = _main(home, arguments, monkeypatch)
        return status, *capfd.readouterr()

    return run
