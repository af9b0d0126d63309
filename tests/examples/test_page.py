"""``docs/plugins.md`` shows the examples as they are, and they are as short as it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import runtime
from runtime.parts import BASES
from runtime.plugins import GROUPS
from tests.examples.conftest import ROOT
from tests.examples.page import PAGE, included, shown

LIMITS = {
    "examples/nearest_pose_policy/nearest_pose.py": 40,
    "examples/synthetic_camera/synthetic_camera.py": 60,
    "examples/seven_joint_arm/seven_joint_arm/driver.py": 150,
}
ROOMS = ("dexrun", "drivers", "policies", "planner", "tests")


def lines_of_code(text: str) -> int:
    """Without comments, blank lines, docstrings and imports."""
    tree = ast.parse(text)
    left_out: set[int] = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= {*range(node.lineno, (node.end_lineno or 0) + 1)}
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and line.strip()[0] != "#" and n not in left_out for n, line in lines)


def test_the_page_shows_the_files_as_they_are() -> None:
    assert PAGE.read_text() == included(), "python -m tests.examples.page"
    assert {*LIMITS} < {*shown()}


@pytest.mark.parametrize("path", LIMITS)
def test_they_are_as_short_as_it_says(path: str) -> None:
    assert lines_of_code((ROOT / path).read_text()) <= LIMITS[path]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.py")), ids=lambda path: path.name)
def test_they_import_the_public_face_alone(path: Path) -> None:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    for node in nodes:
        package = (node.module or "").partition(".")[0]
        assert package not in ROOMS
        if package == "runtime":
            assert node.module == "runtime"
            assert {alias.name for alias in node.names} <= {*runtime.__all__}


def test_the_page_names_every_kind_of_part() -> None:
    page = PAGE.read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`dexrun." in line]
    assert len(rows) == len(GROUPS)
    for kind, base in BASES.items():
        assert any(f"`{GROUPS[kind]}`" in row and f"`{base.__name__}`" in row for row in rows), kind
