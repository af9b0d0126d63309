"""What a run does: grasp, teleoperation."""
