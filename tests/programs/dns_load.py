"""Asks two DNS servers at once, `COUNT FIRST SECOND`: half of the queries over one unconnected socket
that talks to both, half over one connected socket for each. Every answer must come from the server
that was asked, to the question that was asked. Lost queries are sent again, as resolvers do. Prints
JSON."""

import json
import random
import select
import socket
import sys
import time

from dns_message import data_of, query, question
from peer import parse

WINDOW = 16
AGAIN = 1.5
GIVE_UP = 30
SERVFAIL = 2

count = int(sys.argv[1])
family, first = parse(sys.argv[2])
second = parse(sys.argv[3])[1]
servers = [first, second]
both = socket.socket(family, socket.SOCK_DGRAM)
connected = [socket.socket(family, socket.SOCK_DGRAM) for _ in servers]
for asking, server in zip(connected, servers):
    asking.connect(server)
sockets = [both, *connected]
for asking in sockets:
    asking.setblocking(False)
base = random.getrandbits(23)
# id -> (own number, server, socket, when sent, when sent first)
waiting = {}
wrong, lost, again, failed, started, answered = [], 0, 0, 0, 0, 0
free = list(range(65536))
random.shuffle(free)


def send(identifier):
    own, which, asking, _, at_first = waiting[identifier]
    message = query(identifier, f"n{own}.load.test")
    try:
        if asking is both:
            asking.sendto(message, servers[which])
        else:
            asking.send(message)
    except BlockingIOError:
        pass
    now = time.monotonic()
    waiting[identifier] = (own, which, asking, now, at_first or now)


def check(asking, message, source):
    global answered, failed
    identifier = int.from_bytes(message[:2], "big")
    if identifier not in waiting:
        # To a query that was sent twice.
        return
    own, which, asked, _, _ = waiting[identifier]
    if message[3] & 15 == SERVFAIL:
        # Its server was too busy: it is asked again.
        failed += 1
        return
    name, _, _ = question(message)
    expected = bytes([which + 1, own >> 16 & 255, own >> 8 & 255, own & 255])
    faults = [asked is not asking, source[:2] != servers[which][:2], name != f"n{own}.load.test"]
    if message[3] & 15 == 0:
        faults.append(data_of(message) != expected)
    else:
        faults.append(True)
    if any(faults):
        wrong.append([repr(source), name, message.hex(), faults])
    del waiting[identifier]
    free.append(identifier)
    answered += 1


while answered + lost < count:
    while started < count and len(waiting) < WINDOW:
        identifier = free.pop(0)
        which = started % 2
        asking = both if started % 4 < 2 else connected[which]
        waiting[identifier] = ((base + started) & 0xFFFFFF, which, asking, 0, 0)
        send(identifier)
        started += 1
    for asking in select.select(sockets, [], [], 0.2)[0]:
        while True:
            try:
                message, source = asking.recvfrom(4096)
            except BlockingIOError:
                break
            check(asking, message, source)
    now = time.monotonic()
    for identifier, entry in list(waiting.items()):
        if now - entry[4] > GIVE_UP:
            lost += 1
            del waiting[identifier]
        elif now - entry[3] > AGAIN:
            again += 1
            send(identifier)

told = {"answered": answered, "lost": lost, "again": again, "failed": failed, "wrong": wrong[:5]}
print(json.dumps(told))
