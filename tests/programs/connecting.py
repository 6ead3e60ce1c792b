"""Unusual ways to open a connection: CASE ARGUMENT... ; prints what came of it as JSON.

The servers talk first: a line with their name and the client they see.
"""

import contextlib
import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys
import time

from peer import parse, read_line, text_of

TCP_FASTOPEN_CONNECT = 30
MSG_FASTOPEN = 0x20000000
LIBC = ctypes.CDLL(None, use_errno=True)


def new(family=socket.AF_INET):
    """A blocking socket with a bound. Python's own timeouts make the socket non-blocking, which changes what connect
    and MSG_FASTOPEN answer."""
    connection = socket.socket(family)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", 10, 0))
    return connection


def outcome(connection):
    """Who answered, and what the socket says about itself."""
    # One call, so that a trace of it does not depend on what is said.
    server, seen = connection.recv(200).decode().split()
    return {"server": server, "seen": seen, "peer": text_of(connection.getpeername()),
            "local": text_of(connection.getsockname())}


def error_of(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return None


def disconnect(connection):
    """connect() to AF_UNSPEC, which Python's own connect cannot say."""
    if LIBC.connect(connection.fileno(), bytes(16), 16):
        raise OSError(ctypes.get_errno(), "disconnect")


def plain(target):
    family, address = parse(target)
    connection = new(family)
    connection.connect(address)
    return outcome(connection)


def line(target):
    """The first line the server says, itself JSON."""
    family, address = parse(target)
    connection = new(family)
    connection.connect(address)
    return json.loads(read_line(connection))


def mapped(target):
    """An IPv6 socket to an IPv4 address, as Java and Go do."""
    _, (host, port) = parse(target)
    connection = new(socket.AF_INET6)
    connection.connect((f"::ffff:{host}", port))
    return outcome(connection) | {"raw_peer": connection.getpeername()[0]}


def after_failed(refuses, target):
    """The same socket again after a connect that was refused."""
    family, address = parse(target)
    connection = new(family)
    first = error_of(connection.connect, parse(refuses)[1])
    connection.connect(address)
    return outcome(connection) | {"first": first}


def non_blocking(target):
    family, address = parse(target)
    connection = socket.socket(family)
    connection.setblocking(False)
    started = connection.connect_ex(address)
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    ready = poll.poll(5000)
    pending = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    again = connection.connect_ex(address)
    connection.settimeout(10)
    return outcome(connection) | {"started": errno.errorcode.get(started, started), "ready": bool(ready),
                                  "pending": pending, "again": errno.errorcode.get(again, again)}


def fast_open(target, text):
    """Data with the SYN, twice: the second time with a cookie. The server echoes."""
    answers = []
    for _ in range(2):
        family, address = parse(target)
        connection = new(family)
        connection.sendto(text.encode(), MSG_FASTOPEN, address)
        answers.append(exact(connection, len(text)))
        peer = text_of(connection.getpeername())
        connection.close()
    return {"answers": answers, "peer": peer}


def fast_open_connect(target, text):
    """connect() that waits for the first write before it sends its SYN. The server echoes."""
    answers = []
    for _ in range(2):
        family, address = parse(target)
        connection = new(family)
        connection.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        connection.connect(address)
        connection.sendall(text.encode())
        answers.append(exact(connection, len(text)))
        peer = text_of(connection.getpeername())
        connection.close()
    return {"answers": answers, "peer": peer}


def exact(connection, length):
    data = b""
    while len(data) < length and (chunk := connection.recv(length - len(data))):
        data += chunk
    return data.decode()


def bound(source, target):
    """bind() to an address and port of the pod before connect()."""
    family, address = parse(target)
    connection = new(family)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.bind(parse(source)[1])
    connection.connect(address)
    return outcome(connection)


def unspec(first, second):
    """Disconnects with AF_UNSPEC and connects the same socket elsewhere."""
    connection = new()
    connection.connect(parse(first)[1])
    before = outcome(connection)
    disconnect(connection)
    gone = error_of(connection.getpeername)
    connection.connect(parse(second)[1])
    return {"before": before, "gone": gone, "after": outcome(connection)}


def same_four_tuple(source, count, *targets):
    """One source port again and again, to several servers in turn; the server closes first.

    The port is still taken for a moment when the last ACK of the old connection is late, so each connect may be tried
    again for a little while. `late` tells how many had to be.
    """
    wrong, errors, late = [], {}, 0
    for number in range(int(count)):
        name, _, target = targets[number % len(targets)].partition("=")
        deadline = time.monotonic() + 0.25
        while True:
            try:
                got = once_from(source, target)
                break
            except OSError as error:
                got = errno.errorcode.get(error.errno, type(error).__name__)
                if got != "EADDRNOTAVAIL" or time.monotonic() > deadline:
                    break
                late += 1
                time.sleep(0.005)
        if isinstance(got, str):
            errors[got] = errors.get(got, 0) + 1
        elif got["server"] != name or got["peer"] != target:
            wrong.append(got)
    return {"wrong": wrong, "errors": errors, "late": late}


def once_from(source, target):
    """One connection from a fixed source; waits for the server to close."""
    with new() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.bind(parse(source)[1])
        connection.connect(parse(target)[1])
        got = outcome(connection)
        connection.recv(1)
        return got


def one_port_two_servers(source, *targets):
    """One source port to several servers at the same time."""
    with contextlib.ExitStack() as stack:
        got = []
        for target in targets:
            connection = stack.enter_context(new())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(parse(source)[1])
            connection.connect(parse(target)[1])
            got.append(connection)
        return {"outcomes": [outcome(connection) for connection in got]}


def to_device(device, target):
    family, address = parse(target)
    connection = new(family)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    started = time.monotonic()
    connection.connect(address)
    return outcome(connection) | {"seconds": time.monotonic() - started}


def marked(mark, target):
    """What a pod might try to pass for the agent: a mark on the socket, every user id, the agent's own port."""
    family, address = parse(target)
    connection = new(family)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("@I", int(mark, 0)))
    connection.bind(("0.0.0.0", 0))
    connection.connect(address)
    return outcome(connection) | {"uid": os.getuid()}


def taken(address):
    """Whether the pod can listen on a port that the agent listens on, also when asking to share it."""
    family, place = parse(address)
    answers = {}
    for option in ("SO_REUSEADDR", "SO_REUSEPORT"):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
        answers[option] = error_of(lambda: (listener.bind(place), listener.listen()))
        listener.close()
    return answers


CASES = {f.__name__.replace("_", "-"): f
         for f in (plain, line, mapped, after_failed, non_blocking, fast_open, fast_open_connect, bound, unspec,
                   same_four_tuple, one_port_two_servers, to_device, marked, taken)}
print(json.dumps(CASES[sys.argv[1]](*sys.argv[2:])))
