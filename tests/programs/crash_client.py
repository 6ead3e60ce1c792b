"""Connects without pause, kills the agent on the way, and looks at every connect since: TARGET AGENT_PID

The server talks first. With AGENT_PID 0 it only connects, for load. Prints JSON: connects before the kill, and of
those begun after it: how many went direct (the server sees the very port of the client), were refused, failed
otherwise; when the first one succeeded; and their slowest and median time. Times in milliseconds.
"""

import errno
import json
import os
import signal
import socket
import statistics
import sys
import time

from peer import parse, text_of

TARGET, AGENT_PID = parse(sys.argv[1])[1], int(sys.argv[2])
LOAD, BEFORE, AFTER = 2.5, 1.0, 1.0


def attempt():
    """How one connect went, and how long it took."""
    started = time.monotonic()
    connection = socket.socket()
    connection.settimeout(5)
    try:
        connection.connect(TARGET)
        seen = connection.recv(200).decode().split()
        # Only the agent could close without a word.
        how = "cut" if not seen else "direct" if seen[1] == text_of(connection.getsockname()) else "captured"
    except OSError as error:
        how = errno.errorcode.get(error.errno, type(error).__name__)
    finally:
        connection.close()
    return started, time.monotonic() - started, how


def tally(attempts):
    counts = {}
    for *_, how in attempts:
        counts[how] = counts.get(how, 0) + 1
    return counts


def during(seconds):
    end = time.monotonic() + seconds
    attempts = []
    while time.monotonic() < end:
        attempts.append(attempt())
    return attempts


if not AGENT_PID:
    print(json.dumps(tally(during(LOAD))))
    sys.exit()
before = during(BEFORE)
os.kill(AGENT_PID, signal.SIGKILL)
killed = time.monotonic()
after = during(AFTER)
direct = [started + lasted - killed for started, lasted, how in after if how == "direct"]
settled = [(started, lasted, how) for started, lasted, how in after if started - killed > 0.010]
print(json.dumps({
    "before": tally(before), "after": tally(after), "settled": tally(settled),
    "first_direct": direct[0] * 1000 if direct else None,
    "slowest": max(lasted for _, lasted, _ in settled) * 1000,
    "median": statistics.median(lasted for _, lasted, _ in settled) * 1000,
}))
