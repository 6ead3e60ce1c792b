"""For each port read from stdin: connects to `HOST` there at once, and prints whether it was answered."""

import socket
import sys

print("knocking", flush=True)
for line in sys.stdin:
    port = int(line)
    try:
        with socket.create_connection((sys.argv[1], port), 5) as connection:
            connection.settimeout(5)
            print(port, connection.recv(100).decode(), flush=True)
    except OSError as error:
        print(port, error, flush=True)
