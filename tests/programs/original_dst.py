"""Stands where a proxy would: accepts on PORT, asks each connection for its original destination in every way, and
tells the client what it learnt: [BIND:]PORT
"""

import ctypes
import errno
import json
import socket
import sys
import threading

LIBC = ctypes.CDLL(None, use_errno=True)
SO_ORIGINAL_DST = IP6T_SO_ORIGINAL_DST = 80


def ask(connection, level, option, length):
    """getsockopt by way of libc: Python's own refuses lengths above 1024."""
    buffer, room = ctypes.create_string_buffer(length), ctypes.c_uint(length)
    if LIBC.getsockopt(connection.fileno(), level, option, buffer, ctypes.byref(room)):
        return errno.errorcode[ctypes.get_errno()]
    return buffer.raw[:room.value].hex()


def answer(connection):
    questions = {
        "v4": (socket.SOL_IP, SO_ORIGINAL_DST, 16),
        "v4 with room": (socket.SOL_IP, SO_ORIGINAL_DST, 128),
        "v4 too short": (socket.SOL_IP, SO_ORIGINAL_DST, 8),
        "v4 above a page": (socket.SOL_IP, SO_ORIGINAL_DST, 8192),
        "v6": (socket.IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, 28),
        "v6 above a page": (socket.IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, 8192),
        "socket option 80": (socket.SOL_SOCKET, 80, 16),
        "tcp option 80": (socket.IPPROTO_TCP, 80, 16),
        "udp option 80": (socket.IPPROTO_UDP, 80, 16),
        "tcp info above a page": (socket.IPPROTO_TCP, socket.TCP_INFO, 8192),
        "socket type": (socket.SOL_SOCKET, socket.SO_TYPE, 4),
    }
    answers = {name: ask(connection, *question) for name, question in questions.items()}
    # Its content changes from call to call; that it is answered at all is what counts.
    answers["tcp info above a page"] = len(answers["tcp info above a page"]) > 100
    connection.sendall(json.dumps(answers).encode() + b"\n")
    connection.close()


family = socket.AF_INET6
host, _, port = sys.argv[1].rpartition(":")
if host and ":" not in host:
    family = socket.AF_INET
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if family == socket.AF_INET6:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind((host or "::", int(port)))
listener.listen(128)
while True:
    accepted, _ = listener.accept()
    threading.Thread(target=answer, args=(accepted,), daemon=True).start()
