"""What the client and server programs of the tests share."""

import hashlib
import os
import random
import socket

BLOCK = 1 << 16
# Odd, so that the blocks of a transfer differ and a lost, doubled or moved block changes the digest.
STRIDE = 4099


class Pattern:
    """`size` bytes that depend on `seed` and on their position, cheap to make."""

    def __init__(self, seed, size):
        ring = random.Random(seed).randbytes(1 << 20) if size > BLOCK else random.Random(seed).randbytes(size)
        self.ring = memoryview(ring + ring[:BLOCK])
        self.period = len(ring)
        self.size = size

    def blocks(self):
        left, offset = self.size, 0
        while left:
            block = self.ring[offset:offset + min(BLOCK, left)]
            yield block
            left -= len(block)
            offset = (offset + STRIDE) % self.period

    def digest(self):
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


def be_prompt():
    """Takes real-time priority, so that other programs on the machine do not make this one late."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def text_of(address):
    """`ip:port`, a v4-mapped address in its plain form."""
    host = address[0].removeprefix("::ffff:")
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def parse(text):
    """`ip:port` or `[ip]:port` to (family, address)."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, (host, int(port))


def listen(port, backlog=4096, fastopen=0):
    """A listener for IPv4 and IPv6 on every address."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if fastopen:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, fastopen)
    listener.bind(("::", port))
    listener.listen(backlog)
    return listener


def read_line(connection):
    """One line, byte for byte, so that nothing behind it is swallowed."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise EOFError(f"connection ended after {line!r}")
        line += byte
    return line[:-1].decode()


def read_to_end(connection):
    data = b""
    while chunk := connection.recv(1 << 16):
        data += chunk
    return data


def reset(connection):
    """Closes with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4))
    connection.close()
