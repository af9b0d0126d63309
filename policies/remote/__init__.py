"""Policies on another machine, behind the four protocols that the field speaks."""
