"""Asks an HTTP/1.1 server over one connection, and says in JSON how long each answer took.

`ADDRESS:PORT TARGET COUNT [key=value...]`:
pipeline=N     so many requests at once, before an answer is read
upload_us=N    the second half of the request is sent so much later
read_us=N      reads nothing for so long after the request (with an answer that fills the buffers)
stop=PID:US    stops that process before the request is sent, and lets it go on so much later
stop_after=PID:A:US  stops it A microseconds after the request is sent, for so long
every_us=N     a request each so many microseconds
Of each: its status, microseconds from the request's last byte to the answer's, and `x-took-us` of the server.
"""

import json
import os
import signal
import socket
import sys
import threading
import time

host, port = sys.argv[1].rsplit(":", 1)
target, count = sys.argv[2], int(sys.argv[3])
options = dict(option.split("=", 1) for option in sys.argv[4:])
pipeline = int(options.get("pipeline", 1))
upload = int(options.get("upload_us", 0)) / 1e6
read_after = int(options.get("read_us", 0)) / 1e6
every = int(options.get("every_us", 0)) / 1e6


class Client:
    def __init__(self):
        self.stream = socket.create_connection((host.strip("[]"), int(port)))
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def answer(self):
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines)
        length = int(fields[b"content-length"])
        while len(self.buffer) < length:
            self.more()
        self.buffer = self.buffer[length:]
        return int(first.split(b" ")[1]), {name.decode(): value.decode() for name, value in fields.items()}

    def more(self):
        data = self.stream.recv(1 << 20)
        if not data:
            raise EOFError("the connection ended")
        self.buffer += data


def let_go_later(pid, after):
    time.sleep(after)
    os.kill(pid, signal.SIGCONT)


client = Client()
request = f"GET {target} HTTP/1.1\r\nhost: web.demo\r\n\r\n".encode()
results = []
begin = time.perf_counter()
for number in range(count):
    if every:
        time.sleep(max(0, begin + number * every - time.perf_counter()))
    if "stop" in options:
        pid, micros = map(int, options["stop"].split(":"))
        os.kill(pid, signal.SIGSTOP)
        threading.Thread(target=let_go_later, args=(pid, micros / 1e6)).start()
    if upload:
        client.stream.sendall(request[:20])
        time.sleep(upload)
        client.stream.sendall(request[20:])
    else:
        client.stream.sendall(request * pipeline)
    sent = time.perf_counter()
    if "stop_after" in options:
        pid, after, micros = map(int, options["stop_after"].split(":"))
        time.sleep(after / 1e6)
        os.kill(pid, signal.SIGSTOP)
        threading.Thread(target=let_go_later, args=(pid, micros / 1e6)).start()
    if read_after:
        time.sleep(read_after)
    for _ in range(pipeline):
        status, fields = client.answer()
        took = int((time.perf_counter() - sent) * 1e6)
        server, timing = int(fields.get("x-took-us", 0)), fields.get("server-timing")
        results.append({"status": status, "took": took, "server": server, "timing": timing})
print(json.dumps(results))
