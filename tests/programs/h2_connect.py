"""Tunnels on streams of HTTP/2 (RFC 9113, 8.5), frame by frame.

`server ADDRESS`: answers every request with 200, sends back what comes, and after the end `bye LENGTH` and
the end. A stream that begins with `reset` is reset. Prints `ended STREAM` and `reset STREAM CODE`.
`client ADDRESS`: asks for three tunnels over one connection, one after the other, and prints JSON:
`refused` if the first answer is not 200, or else what became of
`tunnel`  3 MB there and back, and the end, to which something is still answered
`reset`   one that the server resets, after one that the client resets
"""

import hashlib
import json
import socket
import struct
import sys
import threading

from h2_frames import DATA, END_STREAM, HEADERS, PREFACE, RST_STREAM, Peer
from peer import Pattern, parse

CANCEL, INTERNAL_ERROR = 8, 2
# :method CONNECT, :authority a.b:443
CONNECT = b"\x02\x07CONNECT\x01\x07a.b:443"
# :status 200
OK = b"\x88"


def serve(connection):
    peer = Peer(connection)
    assert peer.exactly(len(PREFACE)) == PREFACE
    lengths = {}
    while True:
        kind, flags, stream, payload = peer.next()
        if kind == HEADERS:
            lengths[stream] = 0
            peer.begin(stream, OK)
        if kind == DATA and stream in peer.queues:
            if not lengths[stream] and payload.startswith(b"reset"):
                del peer.queues[stream]
                peer.frame(RST_STREAM, 0, stream, struct.pack(">I", INTERNAL_ERROR))
                continue
            lengths[stream] += len(payload)
            peer.send(stream, payload)
        if kind == RST_STREAM:
            peer.queues.pop(stream, None)
            print("reset", stream, int.from_bytes(payload, "big"), flush=True)
        elif flags & END_STREAM and stream in peer.queues:
            print("ended", stream, flush=True)
            peer.send(stream, b"bye %d" % lengths[stream], end=True)


def server(family, address):
    listener = socket.create_server(address, family=family)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=[connection], daemon=True).start()


def until_end(peer, stream):
    """What comes of a stream, and how it ends."""
    received = []
    while True:
        kind, flags, of, payload = peer.next()
        if of != stream:
            continue
        if kind == DATA:
            received.append(payload)
        if kind == RST_STREAM:
            return b"".join(received), f"reset {int.from_bytes(payload, 'big')}"
        if flags & END_STREAM:
            return b"".join(received), "end"


def client(family, address):
    connection = socket.socket(family)
    connection.settimeout(20)
    connection.connect(address)
    connection.sendall(PREFACE)
    peer = Peer(connection)

    def ask(stream):
        peer.begin(stream, CONNECT)
        while True:
            kind, flags, of, payload = peer.next()
            if of == stream and kind == HEADERS:
                return payload.startswith(OK) and not flags & END_STREAM

    if not ask(1):
        return {"refused": True}
    pattern = Pattern(7, 3_000_000)
    peer.send(1, b"".join(pattern.blocks()), end=True)
    received, how = until_end(peer, 1)
    echoed, rest = received[:pattern.size], received[pattern.size:]
    is_same = hashlib.sha256(echoed).hexdigest() == pattern.digest()
    seen = {"tunnel": [is_same, rest.decode("latin-1"), how]}
    assert ask(3)
    peer.send(3, b"hello")
    while peer.next()[2:] != (3, b"hello"):
        pass
    peer.frame(RST_STREAM, 0, 3, struct.pack(">I", CANCEL))
    del peer.queues[3]
    assert ask(5)
    peer.send(5, b"reset")
    seen["reset"] = until_end(peer, 5)[1]
    return seen


if sys.argv[1] == "server":
    server(*parse(sys.argv[2]))
else:
    print(json.dumps(client(*parse(sys.argv[2]))))
