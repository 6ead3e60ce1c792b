"""Asks an echo server, waits for the end of its input, and asks again over the same connected socket."""

import socket
import sys

from peer import parse, text_of

family, address = parse(sys.argv[1])
asking = socket.socket(family, socket.SOCK_DGRAM)
asking.settimeout(5)
asking.connect(address)
for turn in ("first", "second"):
    asking.send(turn.encode())
    data, source = asking.recvfrom(100)
    print(data.decode(), text_of(source), flush=True)
    if turn == "first":
        sys.stdin.read()
