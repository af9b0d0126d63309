"""Packages that a plain install leaves out, asked for before anything that needs them is touched."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from runtime.interfaces import PolicyError


def need(who: str, packages: Iterable[str], extra: str) -> None:
    """Make sure that `packages`, by the names they are imported by, are there; none is imported.

    Raises:
        PolicyError: one is not; one line that says who needs it, and which of dexrun's extras brings it.
    """
    if why := missing(who, packages, extra):
        raise PolicyError(why)


def missing(who: str, packages: Iterable[str], extra: str) -> str:
    """What `need` says of the first of `packages` that is not there; empty if all are."""
    for package in packages:
        if not _there(package):
            return f"{who} needs {package}: pip install 'dexrun[{extra}]'"
    return ""


def _there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # it is there in name only
        return False
