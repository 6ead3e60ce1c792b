"""What programs that speak HTTP/2 frame by frame share."""

import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LONGEST = 16384


class Peer:
    def __init__(self, connection):
        self.connection = connection
        self.buffer = b""
        self.window, self.initial = 65535, 65535
        self.windows, self.queues, self.ending = {}, {}, set()
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

    def begin(self, stream, block):
        self.windows[stream] = self.windows.get(stream, self.initial)
        self.queues[stream] = b""
        self.frame(HEADERS, END_HEADERS, stream, block)

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
                self.queues[stream] = self.queues[stream][size:]
                self.window -= size
                self.windows[stream] -= size
            if not self.queues[stream] and stream in self.ending:
                self.ending.remove(stream)
                del self.queues[stream]
                self.frame(DATA, END_STREAM, stream)

    def next(self):
        """The next frame that is about a stream, but for windows."""
        while True:
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
            elif kind == GOAWAY:
                raise EOFError
            elif stream:
                if kind == DATA and payload:
                    self.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload)))
                    if not flags & END_STREAM:
                        self.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", len(payload)))
                return kind, flags, stream, payload
