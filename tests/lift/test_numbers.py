"""The network's vector is the same wherever around the arm the same thing happens."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policies.lift.numbers import azimuth, rows_of, size, targets, vectors
from policies.lift.options import LiftShape
from policies.lift.sight import SIGHT

SHAPE = LiftShape()
STATE = np.array([[0.4, -1.2, 1.0, 0.5, 0.3, 0.6]])
AZIMUTH = slice(7, 9)
"""The entries that say how far round the object lies."""


def sighting(x: float, y: float, turn: float = 0.0) -> np.ndarray:
    second = np.exp(2j * turn) * 0.4
    fourth = np.exp(4j * turn) * 0.7
    moments = [0.5 + second.real, second.imag, 0.5 - second.real, fourth.real, fourth.imag]
    return np.array([[1.0, x, y, 0.03, 6.0, *moments]])


def turned(x: float, y: float, angle: float) -> tuple[float, float]:
    ax, ay = SHAPE.pan_axis_m
    place = complex(x - ax, y - ay) * np.exp(1j * angle)
    return ax + place.real, ay + place.imag


@pytest.mark.parametrize("angle", [0.7, -1.1, 2.0])
def test_the_scene_turned_about_the_arm_looks_the_same(angle: float):
    x, y = 0.2, -0.03
    state = STATE.copy()
    state[0, 0] += SHAPE.pan_sign * angle
    now, later = sighting(x + 0.01, y), sighting(*turned(x + 0.01, y, angle), turn=angle)
    force = np.array([3.0])
    here = vectors(SHAPE, STATE, sighting(x, y), now, force)[0]
    there = vectors(SHAPE, state, sighting(*turned(x, y, angle), turn=angle), later, force)[0]
    assert here.shape == (size(SHAPE),)
    rest = np.ones(len(here), bool)
    rest[AZIMUTH] = False
    assert there[rest] == pytest.approx(here[rest], abs=1e-5)
    assert math.hypot(*here[AZIMUTH]) == pytest.approx(1.0)


def test_what_is_not_seen_or_not_felt_is_said_to_be_so():
    told = vectors(SHAPE, STATE, sighting(0.2, 0.0), np.zeros((1, SIGHT)), np.array([np.nan]))[0]
    assert told[-7:].tolist() == [0.0] * 7
    felt = vectors(SHAPE, STATE, sighting(0.2, 0.0), sighting(0.2, 0.0), np.array([100.0]))[0]
    assert felt[-7] == 1.0
    assert felt[-2:].tolist() == [1.0, 2.0]  # no more than the largest force that tells anything


def test_the_azimuth_is_about_the_axis_of_the_first_joint():
    x, y = SHAPE.pan_axis_m
    assert azimuth(SHAPE, np.array([x, y + 0.1])) == pytest.approx(math.pi / 2)


def test_chunks_are_relative_to_the_state_but_for_the_gripper():
    rows = np.random.default_rng(1).uniform(size=(1, SHAPE.chunk, 6))
    made = targets(SHAPE, rows, STATE)
    assert made[0, :, 5] == pytest.approx(rows[0, :, 5], abs=1e-6)
    assert rows_of(SHAPE, made[0].astype(float), STATE[0]) == pytest.approx(rows[0], abs=1e-6)


def test_the_gripper_is_asked_for_nothing_beyond_its_range():
    made = np.zeros((SHAPE.chunk, 6))
    made[:, 5] = np.linspace(-0.2, 1.2, SHAPE.chunk)
    assert (rows_of(SHAPE, made, STATE[0])[[0, -1], 5] == [0.0, 1.0]).all()
