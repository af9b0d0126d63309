"""Recordings that are made up, and exports of them, as the tests of exports have them."""

from tests.export.conftest import exported, run

__all__ = ["exported", "run"]
