"""Carries packets between two tun devices, each after a known time: a stand-in for sch_netem.

    delayed_link.py DEVICE NETNS_A FORTH NETNS_B BACK

DEVICE is the name of a tun device in both namespaces (paths). FORTH is how long packets from A to B are
kept, BACK those from B to A, both in microseconds and counted from when they are read; some 100 us come
on top. Every packet is carried, in order. Prints "ready" when both devices are open. A line of standard input
with FORTH and BACK changes both for the packets to come; "lose N" loses the next N IPv4 TCP segments with data that
A sends."""

import collections
import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
import time

from peer import be_prompt

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000
# Longest packet that a tun device hands over.
LONGEST = 65536

libc = ctypes.CDLL(None, use_errno=True)


def open_tun(netns, device):
    """The device is made by who calls this; a process in its namespace may attach to it."""
    with open(netns) as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns", netns)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", device.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def write(tun, packet):
    try:
        os.write(tun, packet)
    except OSError:
        # As on a wire: the other side's queue is full, or its device is down.
        pass


def has_data(packet):
    if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
        return False
    head = (packet[0] & 0xF) * 4
    return len(packet) > head + (packet[head + 12] >> 4) * 4


def carry(ends):
    """`ends`: descriptor -> [the other descriptor, how long packets are kept, those that are]."""
    watched = [*ends, sys.stdin]
    first = next(iter(ends))
    to_lose = 0
    while True:
        now = time.monotonic()
        soonest = []
        for target, _, kept in ends.values():
            while kept and kept[0][0] <= now:
                write(target, kept.popleft()[1])
            if kept:
                soonest.append(kept[0][0])
        # select(2), because its time-out is in microseconds.
        wait = max(0, min(soonest) - now) if soonest else None
        for tun in select.select(watched, [], [], wait)[0]:
            if tun is sys.stdin:
                words = sys.stdin.readline().split()
                if not words:
                    watched.remove(tun)
                elif words[0] == "lose":
                    to_lose = int(words[1])
                else:
                    for end, delay in zip(ends.values(), words):
                        end[1] = int(delay) / 1e6
                continue
            _, delay, kept = ends[tun]
            while True:
                try:
                    packet = os.read(tun, LONGEST)
                except BlockingIOError:
                    break
                if to_lose and tun == first and has_data(packet):
                    to_lose -= 1
                    continue
                kept.append((time.monotonic() + delay, packet))


def main():
    device, netns_a, forth, netns_b, back = sys.argv[1:]
    a, b = open_tun(netns_a, device), open_tun(netns_b, device)
    be_prompt()
    print("ready", flush=True)
    carry({
        a: [b, int(forth) / 1e6, collections.deque()],
        b: [a, int(back) / 1e6, collections.deque()],
    })


main()
