"""Counts the TCP sockets of this network namespace that have an entry in a pinned sk_storage map: PIN

Such a map has no list of its entries (they hang on the sockets), so this asks the socket monitor (sock_diag) for
every socket together with its storage. Prints JSON: sockets with an entry, by state.
"""

import ctypes
import json
import os
import socket
import struct
import sys

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLM_F_REQUEST_DUMP, NLMSG_ERROR, NLMSG_DONE = 0x301, 2, 3
INET_DIAG_REQ_SK_BPF_STORAGES, SK_DIAG_BPF_STORAGE_REQ_MAP_FD = 2, 1
INET_DIAG_SK_BPF_STORAGES = 20
SYS_BPF, BPF_OBJ_GET = {"x86_64": 321, "aarch64": 280}[os.uname().machine], 7
NESTED = 0x8000
STATES = {1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT",
          7: "CLOSE", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING"}


def open_pinned(path):
    name = ctypes.create_string_buffer(path.encode())
    attributes = ctypes.create_string_buffer(struct.pack("=QII", ctypes.addressof(name), 0, 0))
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, BPF_OBJ_GET, attributes, 16)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), path)
    return descriptor


def attribute(kind, payload):
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def attributes(data):
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & ~NESTED, data[4:length]
        data = data[(length + 3) & ~3:]


def sockets_with_entry(family, descriptor):
    request = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    request += attribute(INET_DIAG_REQ_SK_BPF_STORAGES | NESTED,
                         attribute(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, struct.pack("=I", descriptor)))
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    netlink.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0) + request)
    while True:
        data = netlink.recv(1 << 20)
        while data:
            length, kind = struct.unpack_from("=IH", data)
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                code, = struct.unpack_from("=i", data, 16)
                raise OSError(-code, "sock_diag")
            # inet_diag_msg is 72 bytes, its second byte the state.
            for name, payload in attributes(data[16 + 72:length]):
                if name == INET_DIAG_SK_BPF_STORAGES and payload:
                    yield STATES[data[17]]
            data = data[(length + 3) & ~3:]


pinned = open_pinned(sys.argv[1])
counts = {}
for of in (socket.AF_INET, socket.AF_INET6):
    for state in sockets_with_entry(of, pinned):
        counts[state] = counts.get(state, 0) + 1
print(json.dumps(counts))
