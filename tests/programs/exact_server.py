"""An HTTP/1.1 server that takes exactly as long as it is told, and says how long it really took.

`ADDRESS:PORT [one]`; with `one` it serves each connection to its end before the next one. Requests without a body;
`/wait?us=N` is answered N microseconds after it was read, with `x-took-us`: from the return of recv to the call of
send. `/body?bytes=N&us=M`: N bytes, of which the last half is sent M microseconds after the first. `/early`: answered
before the request's body has ended. `/stall?us=N`: the request's body is not read for N microseconds, and then it is.
"""

import socket
import sys
import threading
import time
import urllib.parse

from exact_time import wait_until


def discard_body(stream, head):
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while length > 0:
        length -= len(stream.recv(65536))


bodies = {}


def answer(stream, head, begun):
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
        return
    if url.path == "/early":
        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        discard_body(stream, head)
        return
    wait_until(begun + delay)
    if url.path == "/stall":
        discard_body(stream, head)
    took = int((time.perf_counter() - begun) * 1e6)
    stream.sendall(b"HTTP/1.1 200 OK\r\nx-took-us: %d\r\ncontent-length: 2\r\n\r\nok" % took)


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
        answer(stream, head, begun)


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    is_one = sys.argv[2:] == ["one"]
    listener = socket.create_server((host, int(port)), backlog=128)
    print("ready", flush=True)
    while True:
        stream, _ = listener.accept()
        if is_one:
            serve(stream)
        else:
            threading.Thread(target=serve, args=(stream,), daemon=True).start()


main()
