"""Robots that run every day: as a service of their machine, and many of them at once."""
