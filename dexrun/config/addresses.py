"""Addresses: those that begin with ``world:`` are the simulated tabletop's."""

from __future__ import annotations

WORLD_ADDRESS = "world:"


def in_world(address: str) -> bool:
    """Whether `address` is the simulated tabletop's."""
    return address.startswith(WORLD_ADDRESS)
