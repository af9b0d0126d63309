"""An arm of seven joints and a gripper that speaks lines of text over a serial port."""
