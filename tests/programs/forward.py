"""A service that asks another one for the same path and answers what that answers.

`ADDRESS NEXT`. Passes `traceparent` on, as services do that are traced, and nothing else.
"""

import http.client
import http.server
import sys


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        trace = self.headers.get("traceparent")
        connection = http.client.HTTPConnection(sys.argv[2], timeout=10)
        connection.request("GET", self.path, headers={"traceparent": trace} if trace else {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


host, port = sys.argv[1].rsplit(":", 1)
server = http.server.ThreadingHTTPServer((host, int(port)), Service)
print("ready", flush=True)
server.serve_forever()
