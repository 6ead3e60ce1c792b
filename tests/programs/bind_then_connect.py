"""Binds `OWN`, connects from there to an `inbound_server.py` at `SERVER`, prints what both see as JSON."""

import json
import socket
import sys

from peer import parse, read_line, text_of

own_family, own = parse(sys.argv[1])
_, server = parse(sys.argv[2])
connection = socket.socket(own_family)
connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
connection.settimeout(5)
connection.bind(own)
connection.connect(server)
seen = json.loads(read_line(connection))
print(json.dumps({"peer": text_of(connection.getpeername()), "seen": seen["peer"]}))
