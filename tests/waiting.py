"""How tests wait for what must happen."""

import time

PATIENCE_S = 240
"""Seconds until it is given up. Long, for a slow machine is no fault; where it happens nobody waits for it."""


def until(condition, what, timeout_s=PATIENCE_S, pause_s=0.05):
    """The first true value of `condition()`, asked again until the deadline."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about within {timeout_s} s"
        time.sleep(pause_s)
    return found
