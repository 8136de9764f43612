"""The contracts between the rooms of the package. pyproject.toml holds those of imports."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import mnist_exp

PACKAGE = Path(mnist_exp.__file__).parent
OUTSIDE = [path for path in sorted(PACKAGE.rglob("*.py")) if "tracking" not in path.relative_to(PACKAGE).parts]


def imports(tree: ast.AST) -> set[str]:
    """The top-level names of all imported modules, those within functions included."""
    nodes = list(ast.walk(tree))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names = [*plain, *(node.module or "" for node in nodes if isinstance(node, ast.ImportFrom))]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_outside_tracking_nobody_knows_mlflow(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not imports(tree) & {"mlflow", "sqlalchemy"}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    raw = {node.attr for node in attributes} & {"client", "info"}
    raw |= {
        f"data.{node.attr}"
        for node in attributes
        if node.attr in ("tags", "params", "metrics")
        and isinstance(node.value, ast.Attribute | ast.Name)
        and getattr(node.value, "attr", getattr(node.value, "id", None)) == "data"
    }
    assert not raw


def test_the_contracts_of_imports_are_kept() -> None:
    """In a process of its own: import-linter closes the handlers of all loggers, and with absl's the one of pytest."""
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports within functions and for type checkers count."""
    graph = grimp.build_graph("mnist_exp", cache_dir=None)
    imports_of = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(list(graphlib.TopologicalSorter(imports_of).static_order())) == len(graph.modules)


def test_no_module_only_hands_on_the_names_of_others() -> None:
    """mnist_exp.data does, because stored configs name its functions."""
    for path in sorted(PACKAGE.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body[1:]
        own = [
            node
            for node in body
            if not isinstance(node, ast.Import | ast.ImportFrom) and "__all__" not in ast.dump(node)
        ]
        assert own or not body or path == PACKAGE / "data" / "__init__.py", path


def test_the_top_of_the_package_holds_eleven_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) == 11
