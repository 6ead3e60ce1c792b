"""One socket asks each of many servers in turn, three times over. Prints how many answers were right."""

import json
import socket
import sys

from dns_message import data_of, query
from peer import parse

asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(5)
right, wrong = 0, []
for turn in range(3):
    for number, address in enumerate(sys.argv[1:], 1):
        server = parse(address)[1]
        own = turn * 100 + number
        asking.sendto(query(own, f"n{own}.many.test"), server)
        message, source = asking.recvfrom(4096)
        if source == server and data_of(message) == bytes([number, 0, own >> 8, own & 255]):
            right += 1
        else:
            wrong.append([source, message.hex()])
print(json.dumps({"right": right, "wrong": wrong[:3]}))
