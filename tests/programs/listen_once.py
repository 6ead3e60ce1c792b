"""Listens at `ADDRESS`, says `listening` the moment listen returned, answers one client and ends."""

import os
import socket
import sys

from peer import parse

family, address = parse(sys.argv[1])
listener = socket.socket(family)
listener.bind(address)
listener.listen()
os.write(1, b"listening\n")
connection, _ = listener.accept()
connection.sendall(b"ok")
connection.close()
