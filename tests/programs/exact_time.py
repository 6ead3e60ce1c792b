"""Waiting exactly."""

import time


def wait_until(end):
    """Sleeps, and for the last bit looks at the clock: sleeping wakes up late."""
    while True:
        left = end - time.perf_counter()
        if left <= 0:
            return
        if left > 0.0004:
            time.sleep(left - 0.0003)
