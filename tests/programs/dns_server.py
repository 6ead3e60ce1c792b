"""A DNS server that says who it is: `ADDRESS NUMBER DROP`. To a question of any name the A record is
NUMBER.x.y.z, the last three from the name's own number. Loses one query in DROP (0: none). On a name
that begins with `kill` it says nothing, ever; on one with `slow`, 30 ms later."""

import socket
import sys
import time

from dns_message import answer, question
from peer import parse

family, address = parse(sys.argv[1])
number, drop = int(sys.argv[2]), int(sys.argv[3])
server = socket.socket(family, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
server.bind(address)
print("ready", flush=True)
count = 0
while True:
    message, client = server.recvfrom(4096)
    count += 1
    if drop and count % drop == 0:
        continue
    name = question(message)[0]
    if name.startswith("kill"):
        continue
    if name.startswith("slow"):
        time.sleep(0.03)
    own = int(name.split(".")[0].lstrip("nNslow"))
    server.sendto(answer(message, bytes([number, own >> 16 & 255, own >> 8 & 255, own & 255])), client)
