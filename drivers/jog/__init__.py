"""A leader without an arm: keys, a gamepad or a hand in space move a point that the gripper follows."""
