"""An HTTP/1.1 server that takes exactly as long as it is told, and says how long it really took.

`ADDRESS:PORT [one]`; with `one` it serves each connection to its end before the next one. Requests without a body;
`/wait?us=N` is answered N microseconds after it was read, with `x-took-us`: from the return of recv to the call of
send; with `close=1` the connection ends with the answer. `/body?bytes=N&us=M`: N bytes, of which the last half is sent
M microseconds after the first. `/early`: answered before the request's body has ended. `/stall?us=N`: the request's
body is not read for N microseconds, and then it is. `/again?fail_us=N&ms=M`: every other one is answered with 503
N microseconds after it was read, and is to be tried again M milliseconds later; the others are answered at once.
"""

import itertools
import socket
import sys
import threading
import time
import urllib.parse

from exact_time import wait_until
from peer import parse


def discard_body(stream, head):
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while length > 0:
        length -= len(stream.recv(65536))


bodies = {}
tries = itertools.count()


def answer(stream, head, begun):
    """Says whether the connection goes on."""
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    url = urllib.parse.urlsplit(target)
    query = {key: int(value) for key, value in urllib.parse.parse_qsl(url.query)}
    delay = query.get("us", 0) / 1e6
    if url.path == "/body":
        body = bodies.setdefault(query["bytes"], b"x" * query["bytes"])
        half = len(body) // 2
        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:half])
        wait_until(time.perf_counter() + delay)
        stream.sendall(body[half:])
        return True
    if url.path == "/early":
        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        discard_body(stream, head)
        return True
    if url.path == "/again" and next(tries) % 2 == 0:
        wait_until(begun + query["fail_us"] / 1e6)
        again = b"grpc-retry-pushback-ms: %d" % query["ms"]
        stream.sendall(b"HTTP/1.1 503 Again\r\n%s\r\ncontent-length: 0\r\n\r\n" % again)
        return True
    wait_until(begun + delay)
    if url.path == "/stall":
        discard_body(stream, head)
    took = int((time.perf_counter() - begun) * 1e6)
    is_last = "close" in query
    fields = b"x-took-us: %d\r\n%scontent-length: 2" % (took, b"connection: close\r\n" if is_last else b"")
    stream.sendall(b"HTTP/1.1 200 OK\r\n%s\r\n\r\nok" % fields)
    return not is_last


def serve(stream):
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            more = stream.recv(65536)
            begun = time.perf_counter()
            if not more:
                return
            buffer += more
        head, buffer = buffer.split(b"\r\n\r\n", 1)
        if not answer(stream, head, begun):
            stream.close()
            return


def main():
    family, address = parse(sys.argv[1])
    is_one = sys.argv[2:] == ["one"]
    listener = socket.create_server(address, family=family, backlog=128)
    print("ready", flush=True)
    while True:
        stream, _ = listener.accept()
        if is_one:
            serve(stream)
        else:
            threading.Thread(target=serve, args=(stream,), daemon=True).start()


main()
