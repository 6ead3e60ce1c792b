"""Server with one behaviour a port: NAME PORT=BEHAVIOUR[,SECONDS] ...

Prints one JSON line for every connection that has ended, and how it ended.
"""

import fcntl
import hashlib
import json
import socket
import struct
import sys
import termios
import threading
import time

from peer import listen, reset, text_of

NAME = sys.argv[1]
PRINTING = threading.Lock()


def drain(connection):
    """Reads to the end: (bytes, digest)."""
    total, digest = 0, hashlib.sha256()
    while chunk := connection.recv(1 << 18):
        total += len(chunk)
        digest.update(chunk)
    return {"bytes": total, "sha256": digest.hexdigest()}


def identity(connection, peer, _):
    """Talks first: its name and whom it sees; then waits for the client to close."""
    connection.sendall(f"{NAME} {text_of(peer)}\n".encode())
    return drain(connection)


def once(connection, peer, _):
    """Talks first and closes first."""
    connection.sendall(f"{NAME} {text_of(peer)}\n".encode())
    return {"bytes": 0}


def echo(connection, *_):
    total = 0
    while chunk := connection.recv(1 << 16):
        total += len(chunk)
        connection.sendall(chunk)
    return {"bytes": total}


def sink(connection, *_):
    """Reads to the end, then tells what it got."""
    got = drain(connection)
    connection.sendall(f"{got['bytes']} {got['sha256']}\n".encode())
    return got


def swallow(connection, *_):
    """Reads to the end and says nothing."""
    return drain(connection)


def stall(connection, _, seconds):
    """A reader that does not read for a while."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    time.sleep(seconds)
    return sink(connection)


def break_off(connection, *_):
    """Resets the connection after the first bytes."""
    connection.recv(1 << 16)
    connection.sendall(b"part of an answer")
    time.sleep(0.2)
    reset(connection)
    return {"bytes": 0}


def early(connection, *_):
    """Answers before it has read the request, and closes with the rest of that unread: a reset."""
    connection.recv(1000)
    connection.sendall(b"e" * 100_000)
    # Only what the other side has acknowledged must arrive; the reset throws the rest away. It comes
    # at once then: before a proxy can have passed on much.
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
        pass
    return {"bytes": 1000}


def urgent(connection, *_):
    """Says what it got, the urgent byte where it was sent."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    got = b""
    while chunk := connection.recv(1 << 16):
        got += chunk
    connection.sendall(got)
    return {"bytes": len(got)}


def flood(connection, *_):
    """Sends much to a client that may not read."""
    connection.recv(1)
    connection.sendall(bytes(16 << 20))
    return {"bytes": 1}


def half_close(connection, *_):
    """Closes its own direction first and goes on reading."""
    connection.sendall(f"{NAME}\n".encode())
    connection.shutdown(socket.SHUT_WR)
    return drain(connection)


def late(connection, _, seconds):
    """Goes on sending for a while after the client has closed its direction."""
    got = drain(connection)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(b"still here\n")
        time.sleep(0.25)
    connection.sendall(b"done\n")
    return got


def trickle(connection, _, seconds):
    """Sends slowly for a while, then closes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(b"x" * 1024)
        time.sleep(0.02)
    connection.sendall(b"done\n")
    connection.shutdown(socket.SHUT_WR)
    return drain(connection)


BEHAVIOURS = {f.__name__.replace("_", "-"): f
              for f in (identity, once, echo, sink, swallow, stall, break_off, early, urgent, flood, half_close, late, trickle)}


def serve(listener, behaviour, seconds):
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=handle, args=(connection, peer, behaviour, seconds), daemon=True).start()


def handle(connection, peer, behaviour, seconds):
    record = {"behaviour": behaviour, "peer": text_of(peer), "end": "eof"}
    try:
        record |= BEHAVIOURS[behaviour](connection, peer, seconds)
    except OSError as error:
        record["end"] = type(error).__name__
    connection.close()
    with PRINTING:
        print(json.dumps(record), flush=True)


for argument in sys.argv[2:]:
    port, _, what = argument.partition("=")
    what, _, length = what.partition(",")
    threading.Thread(target=serve, args=(listen(int(port), fastopen=64), what, float(length or 0))).start()
