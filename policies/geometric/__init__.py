"""The geometric policy: mask and depth to points, to a grasp pose, to inverse kinematics, to chunks."""
