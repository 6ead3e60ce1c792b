"""Peers of HTTP/2 that stop reading while their windows are open.

`server ADDRESS LENGTH SECONDS`: answers the first request with 200, and the next with so many bytes after so many
seconds; or reads nothing more, if that has a body.
`client ADDRESS CASE`: asks once, prints `begun`, and then, until there is nothing more to read from standard input
`flood`   asks again and reads nothing
`stall`   sends a body, as long as there is room
`leave`   asks again, reads until the other end says that it is going away, prints `heard`, and reads nothing more
`slow`    has the usual window, asks again, reads the answer 200 ms after it began, and prints `read`"""

import socket
import sys
import threading
import time

from h2_frames import END_STREAM, HEADERS, MOST_WINDOW, PING, PREFACE, Peer
from peer import parse

# :method, :scheme http, :path /, :authority web.demo
GET = b"\x82\x86\x84\x01\x08web.demo"
POST = b"\x83\x86\x84\x01\x08web.demo"
# :status 200
OK = b"\x88"
MUCH = 50_000_000
ROOM = 16384

asked = 0


def serve(connection, length, seconds):
    global asked
    peer = Peer(connection, window=MOST_WINDOW)
    assert peer.exactly(len(PREFACE)) == PREFACE
    while True:
        kind, flags, stream, _ = peer.next()
        if kind != HEADERS:
            continue
        asked += 1
        if asked == 1:
            peer.begin(stream, OK, end=True)
        elif flags & END_STREAM:
            time.sleep(seconds)
            peer.begin(stream, OK)
            peer.send(stream, bytes(length), end=True)
        else:
            return threading.Event().wait()


def server(address, length, seconds):
    family, address = parse(address)
    listener = socket.create_server(address, family=family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=[connection, int(length), float(seconds)], daemon=True).start()


def client(address, case):
    family, address = parse(address)
    connection = socket.socket(family)
    is_slow = case == "slow"
    if not is_slow:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    connection.connect(address)
    connection.sendall(PREFACE)
    peer = Peer(connection, window=0 if is_slow else MOST_WINDOW)
    peer.begin(1, GET, end=True)
    while not peer.next()[1] & END_STREAM:
        pass
    print("begun", flush=True)
    if case in ("flood", "leave", "slow"):
        peer.begin(3, GET, end=True)
    if case == "stall":
        peer.begin(3, POST)
        threading.Thread(target=upload, args=[peer], daemon=True).start()
    if is_slow:
        peer.next()
        time.sleep(0.2)
        while not peer.next()[1] & END_STREAM:
            pass
        print("read", flush=True)
    if case == "leave":
        # Which comes with the news.
        while peer.read()[0] != PING:
            pass
        print("heard", flush=True)
    sys.stdin.read()


def upload(peer):
    peer.send(3, bytes(MUCH), end=True)
    # Windows.
    peer.next()


{"server": server, "client": client}[sys.argv[1]](*sys.argv[2:])
