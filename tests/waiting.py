"""How tests wait for what must happen."""

import time

PATIENCE_S = 240
"""Seconds before a test gives up: long, as a slow machine is no fault and a wait ends when its condition holds."""


def until(condition, what, pause_s=0.05):
    """The first true value of `condition()`, asked again until patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about within {PATIENCE_S} s"
        time.sleep(pause_s)
    return found
