"""What is recorded, and who says when."""
