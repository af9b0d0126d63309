"""Where a camera is that was nudged after it was calibrated: by the table and by the arm that it sees."""
