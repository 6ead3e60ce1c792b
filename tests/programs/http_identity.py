"""HTTP server that tells who it is and whom it sees: NAME PORT HOLD_FILE

GET /hold answers only once HOLD_FILE exists, so that a test can look at a connection that is open.
"""

import json
import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from peer import text_of

NAME, PORT, HOLD_FILE = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/hold":
            deadline = time.monotonic() + 60
            while not os.path.exists(HOLD_FILE) and time.monotonic() < deadline:
                time.sleep(0.01)
        answer = {"server": NAME, "client": text_of(self.client_address),
                  "local": text_of(self.connection.getsockname()), "path": self.path}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 1024
    daemon_threads = True

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


Server(("::", PORT), Handler).serve_forever()
