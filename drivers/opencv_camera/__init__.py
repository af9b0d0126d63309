"""UVC and network cameras on OpenCV."""
