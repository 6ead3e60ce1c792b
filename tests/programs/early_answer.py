"""Uploads to a server that answers before it has read all, over a connection each: `ADDRESS PATH COUNT`.

Prints JSON: how often each status came, with its body as it was on the wire; `none` if there was no answer.
"""

import collections
import json
import socket
import sys

from peer import parse

# More than the buffers on the way have room for.
LENGTH = 20_000_000


def upload(address, path):
    connection = socket.socket(address[0])
    connection.settimeout(20)
    connection.connect(address[1])
    heard = b""
    try:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path.encode(), LENGTH))
        connection.sendall(bytes(LENGTH))
    except (BrokenPipeError, ConnectionResetError):
        pass
    try:
        while data := connection.recv(65536):
            heard += data
    except ConnectionResetError:
        pass
    connection.close()
    head, _, body = heard.decode().partition("\r\n\r\n")
    return f"{head[9:12]} {body}" if head else "none"


address, path, count = parse(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print(json.dumps(collections.Counter(upload(address, path) for _ in range(count))))
