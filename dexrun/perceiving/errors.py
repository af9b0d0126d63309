"""What ``dexrun perceive`` cannot be used with."""

from __future__ import annotations


class InputError(Exception):
    """One line: which picture, number or part, what is wrong with it, what would be accepted."""
