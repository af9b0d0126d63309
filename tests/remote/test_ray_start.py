"""A Ray that does not come up, and says so as Ray does: with a plain exception of several lines."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from dexrun.config.serve_options import ServeOptions
from dexrun.config.sources import ConfigError
from dexrun.evaluation.playing import _on_ray
from dexrun.serve.ray_engine import RayEngine
from policies.remote.serving.metrics import Metrics
from runtime.interfaces import PolicyError
from tests.remote.support import EchoPolicy

SAID = "what it did\nThe current node timed out during startup."


class Busy(ModuleType):
    """Theirs, on a machine that is too busy for it; keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.asked: dict[str, Any] = {}
        self.serve = ModuleType("ray.serve")

    def is_initialized(self) -> bool:
        return False

    def init(self, **asked: Any) -> None:
        self.asked = asked
        raise Exception(SAID)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Busy:
    busy = Busy()
    monkeypatch.setitem(sys.modules, "ray", busy)
    monkeypatch.setitem(sys.modules, "ray.serve", busy.serve)
    return busy


@pytest.mark.parametrize("address", ["", "10.0.0.1:6379"])
def test_a_server_whose_ray_does_not_start_says_so_in_one_line(ray: Busy, address: str) -> None:
    engine = RayEngine(EchoPolicy, ServeOptions(engine="ray", ray_address=address), Metrics())
    with pytest.raises(PolicyError) as caught:
        engine.start()
    assert str(caught.value) == "Ray Serve did not start: The current node timed out during startup."
    assert ray.asked["address"] == (address or "local")
    assert ray.asked.get("include_dashboard", True) is bool(address)


def test_an_evaluation_whose_ray_does_not_start_says_so_in_one_line(ray: Busy) -> None:
    with pytest.raises(ConfigError, match=r"^--engine ray: Ray did not start: The current node timed out"):
        list(_on_ray([]))
