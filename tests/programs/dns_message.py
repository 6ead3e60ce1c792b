"""Just enough DNS to ask and answer, without any library."""

import struct

A, TXT, AAAA = 1, 16, 28


def name_of(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def query(identifier, name, kind=A):
    return struct.pack("!6H", identifier, 0x0100, 1, 0, 0, 0) + name_of(name) + struct.pack("!2H", kind, 1)


def question(message):
    """(name, type, the question's bytes)"""
    at, parts = 12, []
    while message[at]:
        parts.append(message[at + 1 : at + 1 + message[at]].decode())
        at += 1 + message[at]
    return ".".join(parts), struct.unpack_from("!H", message, at + 1)[0], message[12 : at + 5]


def answer(message, data, ttl=0):
    """One record of the type that was asked, with a pointer to the question's name."""
    _, kind, asked = question(message)
    record = struct.pack("!3HIH", 0xC00C, kind, 1, ttl, len(data)) + data
    return message[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + asked + record


def data_of(message):
    """What the only record of an answer says."""
    _, _, asked = question(message)
    return message[12 + len(asked) + 12 :]
