"""Small messages there and back over TCP, one at a time.

    ping_pong.py serve PORT                      echoes, on every address, IPv4 and IPv6
    ping_pong.py visit ADDRESS PORT COUNT        sends one each to COUNT addresses from ADDRESS on
    ping_pong.py ask HOST PORT COUNT [PAUSE_MS]  prints how long each of COUNT took, a JSON list in microseconds
"""

import ipaddress
import json
import socket
import sys
import threading
import time

from peer import be_prompt, listen

SIZE = 200


def receive(connection):
    received = b""
    while len(received) < SIZE:
        part = connection.recv(SIZE - len(received))
        if not part:
            return None
        received += part
    return received


def echo(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while message := receive(connection):
        connection.sendall(message)
    connection.close()


def serve(port):
    listener = listen(port)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def ask(host, port, count, pause):
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    for _ in range(count):
        before = time.monotonic_ns()
        connection.sendall(bytes(SIZE))
        assert receive(connection) is not None, "the server closed the connection"
        times.append((time.monotonic_ns() - before) // 1000)
        time.sleep(pause)
    print(json.dumps(times))


def visit(address, port, count):
    first = ipaddress.ip_address(address)
    for number in range(count):
        with socket.create_connection((str(first + number), port)) as connection:
            connection.sendall(bytes(SIZE))
            assert receive(connection) is not None, "the server closed the connection"


be_prompt()
if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
elif sys.argv[1] == "visit":
    visit(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
else:
    _, _, host, port, count, *pause = sys.argv
    ask(host, int(port), int(count), int(pause[0]) / 1000 if pause else 0)
