"""What programs that speak HTTP/2 frame by frame share."""

import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW, MOST_WINDOW = 4, (1 << 31) - 1
# What a peer says that is about to go away, before it says which streams it has taken.
MOST_STREAMS = (1 << 31) - 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LONGEST = 16384


class Peer:
    """One end of a connection. It lets the other send as much as `window` says, if that is given."""

    def __init__(self, connection, window=0):
        self.connection = connection
        self.buffer = b""
        self.window, self.initial = 65535, 65535
        self.windows, self.queues, self.ending = {}, {}, set()
        if window:
            self.frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, window))
            self.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", window - self.window))
        else:
            self.frame(SETTINGS, 0, 0)

    def frame(self, kind, flags, stream, payload=b""):
        head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
        self.connection.sendall(head + payload)

    def exactly(self, length):
        while len(self.buffer) < length:
            data = self.connection.recv(1 << 16)
            if not data:
                raise EOFError
            self.buffer += data
        data, self.buffer = self.buffer[:length], self.buffer[length:]
        return data

    def begin(self, stream, block, end=False):
        self.windows[stream] = self.windows.get(stream, self.initial)
        if not end:
            self.queues[stream] = bytearray()
        self.frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)

    def send(self, stream, data=b"", end=False):
        self.queues[stream] += data
        if end:
            self.ending.add(stream)
        self.flush()

    def flush(self):
        for stream in list(self.queues):
            while self.queues[stream]:
                size = min(LONGEST, self.window, self.windows[stream], len(self.queues[stream]))
                if size <= 0:
                    break
                self.frame(DATA, 0, stream, self.queues[stream][:size])
                del self.queues[stream][:size]
                self.window -= size
                self.windows[stream] -= size
            if not self.queues[stream] and stream in self.ending:
                self.ending.remove(stream)
                del self.queues[stream]
                self.frame(DATA, END_STREAM, stream)

    def read(self):
        """The next frame, which is dealt with."""
        head = self.exactly(9)
        payload = self.exactly(int.from_bytes(head[:3], "big"))
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                setting, value = struct.unpack_from(">HI", payload, at)
                if setting == INITIAL_WINDOW:
                    self.windows = {key: it + value - self.initial for key, it in self.windows.items()}
                    self.initial = value
            self.frame(SETTINGS, ACK, 0)
            self.flush()
        elif kind == PING and not flags & ACK:
            self.frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            if stream == 0:
                self.window += more
            elif stream in self.windows:
                self.windows[stream] += more
            self.flush()
        elif kind == GOAWAY and int.from_bytes(payload[:4], "big") < MOST_STREAMS:
            raise EOFError
        elif kind == DATA and payload:
            self.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload)))
            if not flags & END_STREAM:
                self.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", len(payload)))
        return kind, flags, stream, payload

    def next(self):
        """The next frame that is about a stream, but for windows."""
        while True:
            kind, flags, stream, payload = self.read()
            if stream and kind != WINDOW_UPDATE:
                return kind, flags, stream, payload
