"""Tunnels of HTTP/1 over connections that were used before, whose packets are lost until well after the answer that
made the tunnel: so what has a packet timestamp is sent again when the connection is no HTTP any more.

`server ADDRESS ANSWER`: answers an ordinary request, and then one with `101` or `200`, before it has them, hears them
400 ms later, and then does what the lines say that come:
`echo N`   sends back the N bytes that come next, and `bye` after the end
`flood N`  sends N bytes
`stall`    reads nothing more
`listen`   says how the connection ends
`reset`    resets it
`client ADDRESS HEAD CASE`: sends an ordinary request and HEAD, hears nothing of the answers for 600 ms, and prints as
JSON
`echo`           whether 3 MB there and back are the same, and what comes after the end
`server-resets`  how the connection ends, in `reset`
The cases `client-resets`, `flood` and `stall` print a line when that has begun; the last two wait for the end of
what there is to read."""

import ctypes
import errno
import json
import socket
import struct
import sys
import threading
import time

from peer import Pattern, parse, read_line, read_to_end, reset

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
# Longest header of TCP.
HEADER = 60
# Classic BPF: a packet's length; jump if greater than; return so many bytes of the packet.
LENGTH, GREATER, RETURN = 0x80, 0x25, 0x06
FIRST = "GET / HTTP/1.1\r\nhost: web.demo\r\n\r\n"
FIRST_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"
ANSWERS = {
    "101": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: lines\r\n\r\n",
    "200": b"HTTP/1.1 200 OK\r\n\r\n",
}
MUCH = 50_000_000


def lose_data(connection):
    """What the peer sends is lost but for bare headers, here and in what is accepted."""
    code = [(LENGTH, 0, 0, 0), (GREATER, 0, 1, HEADER), (RETURN, 0, 0, 0), (RETURN, 0, 0, 0xFFFFFFFF)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    option = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program))
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)


def hear(connection):
    connection.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def read_head(connection):
    lines = [read_line(connection)]
    while lines[-1] != "\r":
        lines.append(read_line(connection))
    return lines


def end_of(connection):
    try:
        return f"end after {len(read_to_end(connection))}"
    except OSError as error:
        return errno.errorcode[error.errno]


def serve(connection, answer):
    for head in (FIRST_ANSWER, ANSWERS[answer]):
        time.sleep(0.05)
        connection.sendall(head)
    time.sleep(0.4)
    hear(connection)
    read_head(connection)
    read_head(connection)
    while True:
        what, *length = read_line(connection).split(" ")
        if what == "echo":
            left = int(length[0])
            while left:
                data = connection.recv(min(left, 1 << 16))
                left -= len(data)
                connection.sendall(data)
            rest = read_to_end(connection)
            connection.sendall(rest + b"bye")
            return connection.close()
        if what == "flood":
            connection.sendall(bytes(int(length[0])))
        if what == "stall":
            return threading.Event().wait()
        if what == "listen":
            return print(end_of(connection), flush=True)
        if what == "reset":
            return reset(connection)


def server(address, answer):
    family, address = parse(address)
    listener = socket.create_server(address, family=family)
    lose_data(listener)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, answer), daemon=True).start()


def client(address, head, case):
    family, address = parse(address)
    connection = socket.socket(family)
    connection.settimeout(20)
    connection.connect(address)
    connection.sendall(f"{FIRST}{head}\r\n\r\n".encode())
    lose_data(connection)
    time.sleep(0.6)
    hear(connection)
    read_head(connection)
    assert read_line(connection) == "ok"
    status = read_head(connection)[0].split(" ")[1]
    assert status in ANSWERS, status
    if case == "echo":
        pattern = Pattern(7, 3_000_000)
        sent = b"".join(pattern.blocks())

        def send():
            connection.sendall(b"echo %d\n" % len(sent) + sent)
            connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        received = read_to_end(connection)
        same = received[:len(sent)] == sent
        return print(json.dumps({"same": same, "then": received[len(sent):].decode("latin-1")}))
    if case == "server-resets":
        connection.sendall(b"reset\n")
        return print(json.dumps({"reset": end_of(connection)}))
    if case == "client-resets":
        connection.sendall(b"listen\n")
        time.sleep(0.3)
        reset(connection)
        return print("reset", flush=True)
    print("begun", flush=True)
    if case == "flood":
        connection.sendall(b"flood %d\n" % MUCH)
    if case == "stall":
        connection.settimeout(None)
        connection.sendall(b"stall\n" + bytes(MUCH))
    sys.stdin.read()


{"server": server, "client": client}[sys.argv[1]](*sys.argv[2:])
