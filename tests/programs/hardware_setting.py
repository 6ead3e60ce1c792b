"""Prints which packets a network card stamps, as the kernel has it; with two more numbers sets that first.

usage: hardware_setting.py INTERFACE [TRANSMIT RECEIVE]
"""

import ctypes
import fcntl
import socket
import struct
import sys

SIOCSHWTSTAMP, SIOCGHWTSTAMP = 0x89B0, 0x89B1


def call(command, interface, *setting):
    # struct hwtstamp_config: flags, tx_type, rx_filter; struct ifreq: name, pointer.
    config = ctypes.create_string_buffer(struct.pack("3i", *setting))
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(config))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, command, request)
    return struct.unpack("3i", config.raw[:12])


interface, *wanted = sys.argv[1:]
if wanted:
    call(SIOCSHWTSTAMP, interface, 0, *map(int, wanted))
print(*call(SIOCGHWTSTAMP, interface, 0, 0, 0))
