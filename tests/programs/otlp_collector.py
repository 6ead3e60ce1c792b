"""A collector of OTLP over HTTP in JSON: `PORT`. Prints each span as a line of JSON; 0 is any free port."""

import http.server
import json
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        is_good = self.path == "/v1/traces" and self.headers["content-type"] == "application/json"
        for resource in request["resourceSpans"] if is_good else []:
            names = {it["key"]: it["value"] for it in resource["resource"]["attributes"]}
            for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
                attributes = {it["key"]: next(iter(it["value"].values())) for it in span["attributes"]}
                span |= {"attributes": attributes, "service": names["service.name"]["stringValue"]}
                print(json.dumps(span), flush=True)
        self.send_response(200 if is_good else 400)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", server.server_address[1], flush=True)
server.serve_forever()
