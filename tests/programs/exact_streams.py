"""HTTP/2 over one connection without a pause, with a server that takes exactly as long as it is told.

`server ADDRESS MICROSECONDS`: answers a request without a body that much later. One with a body is answered at
once, and the answer's body is as long as the request's. Prints `connection` for each that is made, and `requests on N` when
the first one comes on the Nth of them.
`client ADDRESS MICROSECONDS`: opens a stream with a body, and sends one request after the other, that much later, as
long as standard input is open. Then it ends the first stream, and prints JSON: how many `asked` and were
`answered`, and whether the `long` stream ended as it should.
`ask ADDRESS`: sends a request for each line `HOST PATH` of standard input, and prints `answered PATH`.
"""

import json
import select
import socket
import sys
import threading
import time

from exact_time import wait_until
from h2_frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, Peer
from peer import parse

# :scheme http, :path /, :authority web.demo
TARGET = b"\x86\x84\x01\x08web.demo"
# :status 200
OK = b"\x88"
GET, POST = b"\x82" + TARGET, b"\x83" + TARGET


def serve(connection, number, delay):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer = Peer(connection)
    try:
        if peer.exactly(len(PREFACE)) != PREFACE:
            return
        is_first = True
        while True:
            kind, flags, stream, payload = peer.next()
            begun = time.perf_counter()
            if is_first:
                print("requests on", number, flush=True)
                is_first = False
            if kind == HEADERS and flags & END_STREAM:
                wait_until(begun + delay)
                peer.frame(HEADERS, END_HEADERS | END_STREAM, stream, OK)
            elif kind == HEADERS:
                peer.begin(stream, OK)
            elif kind == DATA:
                peer.send(stream, payload, end=flags & END_STREAM)
    except EOFError:
        pass


def server(family, address, delay):
    listener = socket.create_server(address, family=family)
    print("ready", flush=True)
    number = 0
    while True:
        connection, _ = listener.accept()
        number += 1
        print("connection", flush=True)
        threading.Thread(target=serve, args=[connection, number, delay], daemon=True).start()


def begin(family, address):
    connection = socket.socket(family)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.connect(address)
    connection.settimeout(20)
    connection.sendall(PREFACE)
    return Peer(connection)


def client(family, address, pause):
    peer = begin(family, address)
    long, echoed, sent, answered = 1, 0, 0, 0
    peer.begin(long, POST)
    stream = 1
    while not select.select([sys.stdin], [], [], 0)[0]:
        stream += 2
        peer.frame(HEADERS, END_HEADERS | END_STREAM, stream, GET)
        while True:
            kind, flags, of, payload = peer.next()
            if of == long and kind == DATA:
                echoed += len(payload)
            if of == stream and kind == HEADERS:
                # The agent's own answers say more than a status.
                answered += payload.startswith(OK)
            if of == stream and flags & END_STREAM:
                break
        if stream % 200 == 1:
            peer.send(long, b"still here")
            sent += 10
        wait_until(time.perf_counter() + pause)
    peer.send(long, b"bye", end=True)
    flags = 0
    while not flags & END_STREAM:
        kind, flags, of, payload = peer.next()
        if of != long:
            continue
        if kind not in (HEADERS, DATA):
            break
        echoed += len(payload) if kind == DATA else 0
    asked = (stream - 1) // 2
    return {"asked": asked, "answered": answered, "long": echoed == sent + 3 and kind == DATA}


def ask(family, address):
    peer = begin(family, address)
    stream = -1
    for line in sys.stdin:
        host, path = line.encode().split()
        stream += 2
        # :method GET, :scheme http, :path, :authority
        head = b"\x82\x86\x04%c%b\x01%c%b" % (len(path), path, len(host), host)
        peer.frame(HEADERS, END_HEADERS | END_STREAM, stream, head)
        while True:
            _, flags, of, payload = peer.next()
            if of == stream and flags & END_STREAM:
                break
        print("answered", path.decode(), flush=True)


role, address, *microseconds = sys.argv[1:]
delay = [int(it) / 1e6 for it in microseconds]
if role == "server":
    server(*parse(address), *delay)
elif role == "client":
    print(json.dumps(client(*parse(address), *delay)))
else:
    ask(*parse(address))
