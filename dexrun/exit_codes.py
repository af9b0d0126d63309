"""What ``dexrun`` and its commands return to the shell."""

OK = 0
"""Done what was asked."""
NOT_DONE = 1
"""Not done, a person's Ctrl-C included."""
BAD_CONFIGURATION = 2
"""The configuration or the command line cannot be used; nothing was touched."""
STOPPED = 3
"""Ended by a fault or by a safety latch."""
