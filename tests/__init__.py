"""Tests, each with real parts."""

import os

# Test processes keep every processor busy as it is. Networks that each took all of them would wait for one
# another, and what they add up would depend on how many there are. Read when torch is loaded, and handed
# down to programs that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
