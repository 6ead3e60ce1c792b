"""Sends bytes to ADDRESS as they are written, in pieces, and prints what comes back.

`ADDRESS [--end] [--wait SECONDS] [--read] PIECE...`: pieces are Python string literals without quotes; `--end`
closes the sending half after the last, `--wait` is between them, with `--read` what comes back meanwhile is
printed then.
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
reads = "--read" in arguments
if reads:
    arguments.remove("--read")


def pause():
    """Waits, and reads meanwhile if it is to."""
    end = time.monotonic() + wait
    while reads and (left := end - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            print(connection.recv(65536).decode(), flush=True)
        except TimeoutError:
            break
    connection.settimeout(20)
    time.sleep(max(0, end - time.monotonic()))


connection = socket.create_connection(address, timeout=20)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for number, piece in enumerate(arguments):
    if number and wait:
        pause()
    connection.sendall(piece.encode().decode("unicode_escape").encode("latin-1"))
if end:
    connection.shutdown(socket.SHUT_WR)
try:
    while data := connection.recv(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
except ConnectionResetError:
    sys.stdout.write("<reset>")
