"""Policies that LeRobot trained, run from its own folders without LeRobot."""
