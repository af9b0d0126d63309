"""Tests, each with real parts."""

import os

# As many test processes run as there are processors. Networks that each took all of them would wait for one
# another, and what they add up would depend on how many there are. Read when torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
