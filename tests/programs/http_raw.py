"""Sends bytes to ADDRESS as they are written, in pieces, and prints what comes back.

`ADDRESS [--end] [--wait SECONDS] PIECE...`: pieces are Python string literals without quotes; `--end`
closes the sending half after the last, `--wait` is between them.
"""

import socket
import sys
import time

from peer import parse

arguments = sys.argv[1:]
family, address = parse(arguments.pop(0))
end = "--end" in arguments
if end:
    arguments.remove("--end")
wait = 0.0
if "--wait" in arguments:
    at = arguments.index("--wait")
    wait = float(arguments[at + 1])
    del arguments[at:at + 2]
connection = socket.create_connection(address, timeout=20)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for number, piece in enumerate(arguments):
    if number and wait:
        time.sleep(wait)
    connection.sendall(piece.encode().decode("unicode_escape").encode("latin-1"))
if end:
    connection.shutdown(socket.SHUT_WR)
try:
    while data := connection.recv(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
except ConnectionResetError:
    sys.stdout.write("<reset>")
