"""Only mnist_exp/tracking imports MLflow or touches its objects; all others see plain values."""

import ast
from pathlib import Path

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
