"""One name, one thing: neither two public classes share a name, nor a class and a type alias."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "drivers", "policies", "planner", "dexrun")


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def public_classes(modules: dict[str, ast.Module]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for path, module in modules.items():
        for node in module.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(path)
    return found


def type_aliases(modules: dict[str, ast.Module]) -> set[str]:
    """What modules give a name in capitals and small letters to."""
    statements = [node for module in modules.values() for node in module.body if isinstance(node, ast.Assign)]
    names = [each.id for node in statements for each in node.targets if isinstance(each, ast.Name)]
    return {name for name in names if name[0].isupper() and not name.isupper()}


def test_no_two_public_classes_share_a_name(modules: dict[str, ast.Module]) -> None:
    twins = {name: where for name, where in public_classes(modules).items() if len(where) > 1}
    assert twins == {}


def test_no_class_is_called_as_a_type_alias_is(modules: dict[str, ast.Module]) -> None:
    aliases = type_aliases(modules)
    twins = {name: where for name, where in public_classes(modules).items() if name in aliases}
    assert twins == {}


FOREIGN = ("so100", "so101", "so-100", "so-101", "feetech", "sts3215", "dexgrasp", "groot", "openpi", "mjpeg")
"""Robots, devices and policies that there are built-in parts for; the kernel knows none of them."""


def test_the_kernel_names_no_robot_and_no_part() -> None:
    named = {
        str(path.relative_to(ROOT)): word
        for path in (ROOT / "runtime").rglob("*.py")
        for word in FOREIGN
        if word in path.read_text(encoding="utf-8").lower()
    }
    assert named == {}
