"""An HTTP/1 server that does what the path says, good or bad, and tells how often it was asked.

`NAME ADDRESS...`; each address gets a listener. Paths, with their query:

/ok                  200 and the server's name
/head                200 and the request's head as it came, as JSON
/peer                200 and the address of the client
/sum?unasked=1       200 and the length and sum of the request's body; unasked: whatever it expects
/status?code=N       that status
/fail?n=N&key=K      503 for the first N requests with that key, then 200
/slow?ms=N           200 after that time; with name only from the server that has it
/hang                no answer
/part?bytes=N        half of N bytes, then nothing
/reset               a reset instead of an answer; with n and key as /fail
/cut?bytes=N         half of N bytes, then a reset
/close               200, then the connection ends without saying so
/trailers            a chunked answer with trailers
/drip?n=N            N bytes, one every 100 ms
/hints               103, then 200
/echo                101 after `Upgrade`, then what is sent comes back
/refuse              417 without reading the body; with to=end the answer lasts until the connection ends, which is with a
                     reset: part of the body has come
/retry-after?n=N&s=S 503 with Retry-After for the first N, then 200
/healthz             200, or 503 after /healthz?up=0
/log                 how often each path was asked, and how many connections asked anything
"""

import collections
import hashlib
import json
import socket
import struct
import sys
import threading
import time
import urllib.parse

from peer import parse, text_of

COUNTS = collections.Counter()
LOCK = threading.Lock()
HEALTH = {"status": 200}


def count(key):
    with LOCK:
        COUNTS[key] += 1
        return COUNTS[key]


class Connection:
    def __init__(self, name, stream):
        self.name = name
        self.stream = stream
        self.buffer = b""
        self.is_head = False

    def more(self):
        data = self.stream.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def until(self, end):
        while end not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(end, 1)
        return head

    def exactly(self, length):
        while len(self.buffer) < length:
            self.more()
        data, self.buffer = self.buffer[:length], self.buffer[length:]
        return data

    def body(self, headers):
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int(self.until(b"\r\n").split(b";")[0], 16)
                if size == 0:
                    while self.until(b"\r\n"):
                        pass
                    return
                yield self.exactly(size)
                self.exactly(2)
        left = int(headers.get("content-length", 0))
        while left:
            if not self.buffer:
                self.more()
            data, self.buffer = self.buffer[:left], self.buffer[left:]
            left -= len(data)
            yield data

    def answer(self, status, body=b"", more=(), length=None):
        lines = [f"HTTP/1.1 {status} Status", f"X-Server: {self.name}", *more]
        if status not in (204, 304):
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        lines += ["", ""]
        self.stream.sendall("\r\n".join(lines).encode() + (b"" if self.is_head else body))

    def reset(self):
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.close()
        raise EOFError

    def serve(self):
        is_first = True
        while True:
            head = self.until(b"\r\n\r\n").decode("latin-1")
            # Not when it is accepted: the agent makes some only to measure the network.
            if is_first:
                count("connections")
                is_first = False
            line, *lines = head.split("\r\n")
            method, target, _version = line.split(" ")
            self.is_head = method == "HEAD"
            headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
            path, _, query = target.partition("?")
            if "://" in path:
                path = "/" + path.split("/", 3)[3]
            query = dict(urllib.parse.parse_qsl(query))
            count(path)
            self.handle(method, path, query, headers, head)

    def handle(self, method, path, query, headers, head):
        if path == "/refuse":
            if query.get("to") == "end":
                self.stream.recv(1, socket.MSG_PEEK)
                self.stream.sendall(b"HTTP/1.1 417 Status\r\nConnection: close\r\n\r\nrefused")
            else:
                self.answer(417, b"refused", more=["Connection: close"])
            raise EOFError
        if path == "/echo":
            self.answer_upgrade(headers)
        length, sum_ = 0, hashlib.sha256()
        if headers.get("expect") == "100-continue" and "unasked" not in query:
            self.stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        for data in self.body(headers):
            length += len(data)
            sum_.update(data)
        number = lambda key, default=0: int(query.get(key, default))
        first = lambda: number("n") and count(path + query.get("key", "")) <= number("n")
        if path == "/head":
            self.answer(200, json.dumps(head.split("\r\n")).encode())
        elif path == "/peer":
            self.answer(200, text_of(self.stream.getpeername()).encode())
        elif path == "/sum":
            self.answer(200, f"{length} {sum_.hexdigest()}".encode())
        elif path == "/status":
            self.answer(number("code"), b"" if number("code") in (204, 304) else b"status")
        elif path == "/fail":
            self.answer(503 if first() else 200, self.name.encode())
        elif path == "/retry-after":
            if first():
                self.answer(503, more=[f"Retry-After: {number('s')}"])
            else:
                self.answer(200, self.name.encode())
        elif path == "/slow":
            if query.get("name", self.name) == self.name:
                time.sleep(number("ms") / 1000)
            self.answer(200, self.name.encode())
        elif path == "/hang":
            self.more()
        elif path == "/part":
            self.answer(200, b"x" * (number("bytes") // 2), length=number("bytes"))
            self.more()
        elif path == "/reset":
            if not number("n") or first():
                self.reset()
            self.answer(200, self.name.encode())
        elif path == "/cut":
            self.answer(200, b"x" * (number("bytes") // 2), length=number("bytes"))
            time.sleep(0.1)
            self.reset()
        elif path == "/close":
            self.answer(200, self.name.encode())
            raise EOFError
        elif path == "/trailers":
            self.stream.sendall(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                b"5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n"
            )
        elif path == "/drip":
            self.answer(200, length=number("n"))
            for _ in range(number("n")):
                time.sleep(0.1)
                self.stream.sendall(b"x")
        elif path == "/hints":
            self.stream.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            self.answer(200, self.name.encode())
        elif path == "/healthz":
            if "up" in query:
                HEALTH["status"] = 200 if query["up"] == "1" else 503
                return self.answer(200)
            self.answer(HEALTH["status"])
        elif path == "/log":
            with LOCK:
                self.answer(200, json.dumps(COUNTS).encode())
        else:
            self.answer(200, self.name.encode(), more=["X-Mixed-CASE: kept"])

    def answer_upgrade(self, headers):
        if headers.get("upgrade") != "test" or "upgrade" not in headers.get("connection", "").lower():
            self.answer(400, b"no upgrade")
            raise EOFError
        self.stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\nhi")
        self.stream.sendall(self.buffer)
        while data := self.stream.recv(65536):
            self.stream.sendall(data)
        # The end of one direction is not that of the other.
        self.stream.sendall(b"bye")
        raise EOFError


def serve(name, stream):
    try:
        Connection(name, stream).serve()
    except (EOFError, OSError):
        stream.close()


def accept(name, listener):
    while True:
        stream, _peer = listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(name, stream), daemon=True).start()


def main():
    name, *addresses = sys.argv[1:]
    for text in addresses:
        family, address = parse(text)
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
        threading.Thread(target=accept, args=(name, listener), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


main()
