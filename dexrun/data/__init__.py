"""What to do with recordings and checkpoints."""
