"""Connects to `ADDRESS`, says `connected` and holds the connection until stdin ends."""

import socket
import sys

from peer import parse

family, address = parse(sys.argv[1])
connection = socket.socket(family)
connection.connect(address)
print("connected", flush=True)
sys.stdin.read()
