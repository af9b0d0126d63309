"""``dexrun serve``: any policy behind GR00T's, LeRobot's, openpi's or ACT's protocol."""
