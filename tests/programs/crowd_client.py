"""Holds many connections while opening and closing others: HOLD RATE SECONDS NAME=IP:PORT...

RATE connections a second are opened beside the held ones, each to the next server, and closed by this side first.
Prints JSON: how many were held and churned, errors by name, wrong servers, and whether the held ones still work.
"""

import errno
import json
import socket
import sys
import time

from peer import parse

HOLD, RATE, SECONDS = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
SERVERS = [(name, parse(address)[1]) for name, _, address in (a.partition("=") for a in sys.argv[4:])]
errors, wrong = {}, []


def open_one(number):
    """A connection that has heard the name of its server; none on an error."""
    name, address = SERVERS[number % len(SERVERS)]
    connection = socket.socket()
    connection.settimeout(10)
    try:
        connection.connect(address)
        said = connection.recv(100).decode().strip()
    except OSError as error:
        key = errno.errorcode.get(error.errno, type(error).__name__)
        errors[key] = errors.get(key, 0) + 1
        connection.close()
        return None
    if said != name:
        wrong.append([name, said])
    return connection


started = time.monotonic()
held = [connection for number in range(HOLD) if (connection := open_one(number))]
print(f"holding {len(held)}", file=sys.stderr, flush=True)
filled = time.monotonic()
churned = 0
while (elapsed := time.monotonic() - filled) < SECONDS:
    if churned >= elapsed * RATE:
        time.sleep(0.001)
        continue
    connection = open_one(churned)
    churned += 1
    if connection:
        connection.close()
lost = 0
for connection in held:
    connection.setblocking(False)
    try:
        # Anything but "nothing to read yet" means that the connection has ended.
        connection.recv(1)
        lost += 1
    except BlockingIOError:
        pass
    except OSError:
        lost += 1
print(json.dumps({"held": len(held), "churned": churned, "errors": errors, "wrong": wrong[:10], "lost": lost,
                  "fill_seconds": filled - started}))
