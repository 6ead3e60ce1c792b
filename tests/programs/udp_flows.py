"""Many sockets talk to an echo server at once: `ADDRESS SOCKETS EACH`. Half of them connected. Sends with
a window for each and one for all, so that nothing is lost for want of room on the way (a veth's backlog
holds 1,000 packets, and the largest datagram is 28 of them); every answer must be whole, in order, and come from
the server that was asked. Prints JSON."""

import json
import random
import select
import socket
import sys

from peer import parse, text_of

WINDOW = 2
LARGEST = 40_000
IN_FLIGHT = 5 * LARGEST

family, address = parse(sys.argv[1])
count, each = int(sys.argv[2]), int(sys.argv[3])
states = {}
for number in range(count):
    asking = socket.socket(family, socket.SOCK_DGRAM)
    asking.setblocking(False)
    if number % 2:
        asking.connect(address)
    states[asking] = {"sent": 0, "received": 0, "connected": number % 2, "number": number}


def datagram(state, index):
    size = random.Random(state["number"] * 1_000_003 + index).choice([1, 100, 1400, 9000, LARGEST])
    return f"{state['number']}/{index}/".encode().ljust(size, b"x")


faults = []
in_flight = 0
busy = set(states)
while busy and not faults:
    # Who has sent least goes first: no flow is idle for long.
    for asking in sorted(busy, key=lambda asking: states[asking]["sent"]):
        state = states[asking]
        while state["sent"] < each and state["sent"] - state["received"] < WINDOW:
            data = datagram(state, state["sent"])
            if in_flight + len(data) > IN_FLIGHT:
                break
            in_flight += len(data)
            if state["connected"]:
                asking.send(data)
            else:
                asking.sendto(data, address)
            state["sent"] += 1
    readable = select.select(list(busy), [], [], 10)[0]
    if not readable:
        faults.append("nothing came for 10 s")
    for asking in readable:
        state = states[asking]
        data, source = asking.recvfrom(65536)
        in_flight -= len(data)
        expected = datagram(state, state["received"])
        if data != expected or source[:2] != address[:2]:
            faults.append([text_of(source), data[:40].decode(), expected[:40].decode()])
        state["received"] += 1
        if state["received"] == each:
            busy.discard(asking)
peers = {text_of(asking.getpeername()) for asking in states if states[asking]["connected"]}
print(json.dumps({"received": sum(s["received"] for s in states.values()), "faults": faults[:3], "peers": list(peers)}))
