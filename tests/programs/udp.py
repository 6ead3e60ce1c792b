"""UDP: `serve PORT` echoes; `connected|unconnected ADDRESS` asks and prints who answered as JSON."""

import json
import socket
import sys

from peer import parse, text_of

if sys.argv[1] == "serve":
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    # Answers of many clients at once: SO_RCVBUFFORCE.
    server.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
    server.bind(("::", int(sys.argv[2])))
    print("ready", flush=True)
    while True:
        data, client = server.recvfrom(65536)
        server.sendto(data, client)

family, address = parse(sys.argv[2])
asking = socket.socket(family, socket.SOCK_DGRAM)
asking.settimeout(5)
if sys.argv[1] == "connected":
    asking.connect(address)
    asking.send(b"hello")
else:
    asking.sendto(b"hello", address)
answer, source = asking.recvfrom(2048)
print(json.dumps({"answer": answer.decode(), "from": text_of(source)}))
