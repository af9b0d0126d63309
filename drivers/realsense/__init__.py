"""RealSense RGB-D cameras on librealsense."""
