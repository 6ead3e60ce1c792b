"""Servers that tell each client what they see of it, and echo then: `SPEC...`, where a spec is
`ADDRESS[/v6only][/reuseport]`. Prints what getsockname says of each listener, then `ready`."""

import json
import select
import socket
import sys
import threading

from peer import parse, text_of


def listen(spec):
    address, *options = spec.split("/")
    family, address = parse(address)
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int("v6only" in options))
    if "reuseport" in options:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(address)
    listener.listen(1024)
    return listener


def serve(spec, connection, accepted):
    try:
        seen = {
            "server": spec,
            "accept": text_of(accepted),
            "peer": text_of(connection.getpeername()),
            "name": text_of(connection.getsockname()),
        }
        connection.sendall(json.dumps(seen).encode() + b"\n")
        while data := connection.recv(1 << 16):
            connection.sendall(data)
    except OSError:
        pass
    connection.close()


listeners = {listen(spec): spec for spec in sys.argv[1:]}
for listener in listeners:
    print("name", text_of(listener.getsockname()), flush=True)
print("ready", flush=True)
while True:
    for listener in select.select(list(listeners), [], [])[0]:
        connection, accepted = listener.accept()
        threading.Thread(target=serve, args=(listeners[listener], connection, accepted), daemon=True).start()
