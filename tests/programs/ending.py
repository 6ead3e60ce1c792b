"""Ways in which a connection ends or stalls: CASE ARGUMENT... ; prints what came of it as JSON."""

import errno
import hashlib
import json
import select
import socket
import sys
import threading
import time

from peer import Pattern, parse, read_line, read_to_end, reset


def connect(target):
    family, address = parse(target)
    connection = socket.socket(family)
    connection.settimeout(60)
    connection.connect(address)
    return connection


def name_of(error):
    return errno.errorcode.get(error.errno, type(error).__name__)


def refused(target, how):
    """To a port where nobody listens; the first `read` or `write` after connect tells."""
    started = time.monotonic()
    answer = {"connect": None, "then": None}
    try:
        connection = connect(target)
    except OSError as error:
        return answer | {"connect": name_of(error), "seconds": time.monotonic() - started}
    try:
        if how == "read":
            answer["then"] = "data" if connection.recv(1) else "end of file"
        else:
            for _ in range(1000):
                connection.sendall(b"anybody there?\n")
                time.sleep(0.001)
    except OSError as error:
        answer["then"] = name_of(error)
    return answer | {"seconds": time.monotonic() - started}


def give_up(target):
    """Resets while the connection may still be under way, with and without having sent something."""
    for text in (b"anybody there?", b""):
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(parse(target)[1])
        time.sleep(0.3)
        if text:
            try:
                connection.send(text)
            except BlockingIOError:
                pass  # without an agent it is not connected yet
        time.sleep(0.3)
        reset(connection)
    return {}


def server_resets(target):
    connection = connect(target)
    connection.sendall(b"a question\n")
    answer, end = b"", "end of file"
    try:
        while chunk := connection.recv(100):
            answer += chunk
    except OSError as error:
        end = name_of(error)
    return {"answer": answer.decode(), "end": end}


def early_answer(target, count):
    """Uploads much to a server that answers early: how much of every answer is received."""
    received = []
    for _ in range(int(count)):
        connection = connect(target)
        try:
            connection.sendall(bytes(20_000_000))
        except OSError:
            pass
        total = 0
        try:
            while chunk := connection.recv(1 << 16):
                total += len(chunk)
        except OSError:
            pass
        received.append(total)
        connection.close()
    return {"received": received}


def urgent_byte(target):
    connection = connect(target)
    connection.sendall(b"ab")
    connection.send(b"!", socket.MSG_OOB)
    time.sleep(0.2)
    connection.sendall(b"cd")
    connection.shutdown(socket.SHUT_WR)
    return {"got": read_to_end(connection).decode()}


def stalled(target, count):
    """Readers that do not read; holds them until it is told to end."""
    connections = []
    for _ in range(int(count)):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(parse(target)[1])
        connection.sendall(b"x")
        connections.append(connection)
    print("started", file=sys.stderr, flush=True)
    time.sleep(600)


def crowded(target, count):
    """Opens all, then sees how many answer, closes those, and so on until all have answered."""
    left = []
    for _ in range(int(count)):
        connection = connect(target)
        connection.sendall(b"?")
        connection.setblocking(False)
        left.append(connection)
    first = answered = 0
    deadline = time.monotonic() + 40
    while left and time.monotonic() < deadline:
        quiet = 0
        done = []
        # All that have room answer; those without stay quiet.
        while quiet < 5:
            ready = [c for c in select.select(left, [], [], 0.2)[0] if c not in done]
            quiet = 0 if ready else quiet + 1
            for connection in ready:
                if connection.recv(1) != b"?":
                    raise EOFError
                done.append(connection)
        first = first or len(done)
        answered += len(done)
        for connection in done:
            left.remove(connection)
            connection.close()
    return {"first": first, "answered": answered}


def client_resets(target):
    connection = connect(target)
    connection.sendall(b"x" * 1000)
    time.sleep(0.2)
    reset(connection)
    return {}


def client_half_closes(target, size):
    """Closes its own direction and reads on until the server is done."""
    connection = connect(target)
    connection.sendall(b"x" * int(size))
    connection.shutdown(socket.SHUT_WR)
    started = time.monotonic()
    data = read_to_end(connection)
    return {"last": data.decode().splitlines()[-1], "lines": data.count(b"\n"), "seconds": time.monotonic() - started}


def server_half_closes(target, size):
    """The server closes its direction first; what is sent afterwards must arrive all the same."""
    connection = connect(target)
    said = read_to_end(connection).decode().strip()
    time.sleep(0.3)
    connection.sendall(b"y" * int(size))
    connection.close()
    return {"said": said}


def at_once(target, count, size):
    """connect, send, close, without waiting for anything."""
    errors = {}
    for number in range(int(count)):
        try:
            connection = connect(target)
            connection.sendall(bytes([number % 256]) * int(size))
            connection.close()
        except OSError as error:
            errors[name_of(error)] = errors.get(name_of(error), 0) + 1
    return {"errors": errors}


def upload(target, size):
    """Sends a lot and reads back the digest of what arrived."""
    connection = connect(target)
    pattern = Pattern(7, int(size))
    print("started", file=sys.stderr, flush=True)
    for block in pattern.blocks():
        connection.sendall(block)
    connection.shutdown(socket.SHUT_WR)
    count, digest = read_line(connection).split()
    return {"bytes": int(count), "right": digest == pattern.digest()}


def slow_down(target):
    """Receives until the server is done, however long that takes."""
    connection = connect(target)
    print("started", file=sys.stderr, flush=True)
    data, end = b"", "end of file"
    try:
        while chunk := connection.recv(1 << 16):
            data += chunk
    except OSError as error:
        end = name_of(error)
    return {"bytes": len(data), "done": data.endswith(b"done\n"), "end": end}


def both_ways(target, size):
    """An echo of a lot, sent and received at once."""
    connection = connect(target)
    pattern = Pattern(11, int(size))

    def send():
        for block in pattern.blocks():
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    digest, count = hashlib.sha256(), 0
    while chunk := connection.recv(1 << 18):
        digest.update(chunk)
        count += len(chunk)
    sender.join()
    return {"bytes": count, "right": digest.hexdigest() == pattern.digest()}


CASES = {f.__name__.replace("_", "-"): f
         for f in (refused, give_up, server_resets, early_answer, urgent_byte, stalled, crowded, client_resets, client_half_closes, server_half_closes, at_once, upload,
                   slow_down, both_ways)}
print(json.dumps(CASES[sys.argv[1]](*sys.argv[2:])))
