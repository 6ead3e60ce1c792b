"""Asks `inbound_server.py` at each `ADDRESS` what it sees, echoes something, and prints the outcomes as
JSON: by address, what the server said, or the error. Own ports become `mine`."""

import errno
import json
import socket
import sys

from peer import parse, read_line, text_of

outcomes = {}
for target in sys.argv[1:]:
    family, address = parse(target)
    try:
        with socket.socket(family) as connection:
            connection.settimeout(5)
            connection.connect(address)
            seen = json.loads(read_line(connection))
            port = str(connection.getsockname()[1])
            for key in ("accept", "peer"):
                host, _, seen_port = seen[key].rpartition(":")
                seen[key] = f"{host}:{'mine' if seen_port == port else 'other'}"
            seen["me"] = text_of(connection.getsockname()).rpartition(":")[0]
            connection.sendall(b"x" * 100_000)
            connection.shutdown(socket.SHUT_WR)
            size = 0
            while data := connection.recv(1 << 16):
                size += len(data)
            seen["echoed"] = size
            outcomes[target] = seen
    except TimeoutError:
        outcomes[target] = "timeout"
    except (OSError, EOFError) as error:
        outcomes[target] = errno.errorcode.get(getattr(error, "errno", None), str(error))
print(json.dumps(outcomes))
