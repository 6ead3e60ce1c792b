"""Services that call each other over HTTP.

`serve ADDRESS [NEXT]`: calls NEXT for each request, and fails if that fails; without NEXT it always fails.
Passes `traceparent` on, as services do that are traced, and nothing else. `/count` says how often it was
asked.
`ask ADDRESS REQUESTS AT_ONCE [traced]` prints the statuses and how many answers were marked, as JSON.
"""

import collections
import http.client
import http.server
import itertools
import json
import sys
import threading
import time

LOCK = threading.Lock()
COUNT = 0
WORK = 0.005


def call(address, headers):
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request("GET", "/", headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    following = None

    def do_GET(self):
        global COUNT
        if self.path == "/count":
            return self.answer(200, str(COUNT).encode())
        with LOCK:
            COUNT += 1
        time.sleep(WORK)
        if self.following:
            trace = self.headers.get("traceparent")
            status = call(self.following, {"traceparent": trace} if trace else {}).status
            if status == 200:
                return self.answer(200)
        self.answer(503)

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512


def serve(address, following=None):
    Service.following = following
    host, port = address.rsplit(":", 1)
    server = Server((host, int(port)), Service)
    print("ready", flush=True)
    server.serve_forever()


def ask(address, requests, at_once, traced=""):
    statuses, marked, numbers = collections.Counter(), collections.Counter(), itertools.count()

    def worker():
        while (number := next(numbers)) < int(requests):
            headers = {"traceparent": f"00-{number + 1:032x}-{1:016x}-01"} if traced else {}
            answer = call(address, headers)
            statuses[answer.status] += 1
            marked[answer.getheader("x-mesh-no-retry") or "-"] += 1

    workers = [threading.Thread(target=worker) for _ in range(int(at_once))]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    print(json.dumps({"statuses": statuses, "marked": marked}))


{"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
