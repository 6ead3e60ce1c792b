"""Sends generated requests, good and hostile, to a server directly and through a proxy, and compares what
comes of them: `DIRECT PROXIED SEED COUNT`.

What may differ is listed in EXPLAINED, each with the reason. Prints JSON: how many were the same, how many
differed by each reason, and those that differed by none.
"""

import collections
import concurrent.futures
import json
import random
import socket
import sys

from peer import parse

# Header lines for one hop only, and such as the proxy's own connection to the server has.
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "upgrade", "http2-settings"}


class Request:
    """A request's bytes, and what was done to it."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.faults = set()
        self.line_end = b"\r\n"
        self.method = self.pick(["GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "PROPFIND"])
        self.target = self.pick(["/", "/a/b?c=d&e", "/%20x%2F", "//double//slash", "/;p=1", "/?", "/x" * 500])
        self.version = "HTTP/1.1"
        self.headers = [(b"Host", b"web.demo")]
        self.body = b""
        self.make_headers()
        self.make_body()
        if self.random.random() < 0.5:
            self.pick(FAULTS)(self)

    def pick(self, choices):
        return self.random.choice(choices)

    def fault(self, name):
        self.faults.add(name)

    def make_headers(self):
        for number in range(self.random.randrange(6)):
            name = self.pick([b"X-One", b"x-two", b"ACCEPT", b"Cookie", b"User-Agent", b"X-%d" % number, b"Range", b"If-None-Match"])
            value = self.pick([b"a", b"a, b", b"", b"  spaces  ", b"\ttab", b'"quoted;"', b"x" * 300, b"caf\xc3\xa9", b"a=b; c=d"])
            self.headers.append((name, value))
        self.random.shuffle(self.headers)
        if self.random.random() < 0.2:
            self.headers.append((b"Connection", self.pick([b"close", b"keep-alive", b"X-One", b"keep-alive, X-One"])))
        if self.random.random() < 0.1:
            self.headers.append((b"TE", self.pick([b"trailers", b"gzip", b"trailers, deflate"])))

    def make_body(self):
        if self.method in ("GET", "HEAD", "OPTIONS", "PROPFIND") and self.random.random() < 0.8:
            return
        data = self.random.randbytes(self.pick([0, 1, 10, 1000, 70_000]))
        if self.random.random() < 0.5:
            self.headers.append((b"Content-Length", str(len(data)).encode()))
            self.body = data
            return
        self.headers.append((b"Transfer-Encoding", self.pick([b"chunked", b"Chunked", b"chunked "])))
        parts = []
        while data:
            size = self.random.randrange(1, 20_000)
            piece, data = data[:size], data[size:]
            extension = self.pick([b"", b"", b";a=b", b';a="b"'])
            parts.append(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece))
        trailers = self.pick([b"", b"", b"X-Trailer: t\r\n"])
        if trailers and self.random.random() < 0.5:
            self.headers.append((b"Trailer", b"X-Trailer"))
        self.body = b"".join(parts) + b"0\r\n" + trailers + b"\r\n"

    def drop(self, name):
        self.headers = [line for line in self.headers if line[0].lower() != name]

    def bytes(self):
        lines = [b" ".join([self.method.encode(), self.target.encode("latin-1"), self.version.encode()])]
        lines += [name + b": " + value for name, value in self.headers]
        return self.line_end.join(lines) + self.line_end * 2 + self.body


FAULTS = []


def fault(function):
    FAULTS.append(function)
    return function


@fault
def version(request):
    request.version = request.pick(["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 ", "HTTP/11", "", "HTTP/1,1"])
    request.fault("version " + request.version)


@fault
def host(request):
    request.drop(b"host")
    kind = request.pick(["none", "twice", "empty", "odd", "port"])
    hosts = {"none": [], "twice": [b"a", b"b"], "empty": [b""], "odd": [b"a b"], "port": [b"web.demo:80"]}[kind]
    request.headers += [(b"Host", host) for host in hosts]
    request.fault("host " + kind)


@fault
def method(request):
    request.method = request.pick(["FOO", "get", "G@T", "", "CONNECT", "TRACE", "G\tT", "QUERY"])
    request.fault("method " + request.method)


@fault
def target(request):
    kind, request.target = request.pick([
        ("absolute", "http://web.demo/abs?x=1"), ("asterisk", "*"), ("space", "/a b"), ("control", "/a\x01b"),
        ("high", "/\xfc"), ("empty", ""), ("relative", "a/b"), ("long", "/" + "l" * 9000), ("other", "ftp://a/b"), ("fragment", "/a#b"),
    ])
    request.fault("target " + kind)


@fault
def name(request):
    kind, bad = request.pick([
        ("space", b"X Y"), ("before colon", b"X-Z "), ("empty", b""), ("control", b"X\x01"), ("high", b"X\xff"), ("paren", b"X(Y)"),
    ])
    request.headers.insert(request.random.randrange(len(request.headers) + 1), (bad, b"v"))
    request.fault("name " + kind)


@fault
def value(request):
    kind, bad = request.pick([
        ("nul", b"a\0b"), ("cr", b"a\rb"), ("lf", b"a\nb"), ("fold", b"a\r\n b"), ("high", b"\xff\xfe"), ("control", b"a\x01"), ("delete", b"a\x7f"),
    ])
    request.headers.append((b"X-Value", bad))
    request.fault("value " + kind)


@fault
def line_ends(request):
    request.line_end = b"\n"
    request.fault("line ends")


@fault
def many(request):
    kind = request.pick(["large", "many", "huge"])
    lines = {"large": [(b"X-L", b"l" * 9000)], "many": [(b"X-%d" % at, b"v") for at in range(120)], "huge": [(b"X-H", b"h" * 70_000)]}[kind]
    request.headers += lines
    request.fault("headers " + kind)


@fault
def length(request):
    request.drop(b"content-length")
    request.drop(b"transfer-encoding")
    kind, lines = request.pick([
        ("signed", [b"+5"]), ("negative", [b"-5"]), ("hex", [b"0x5"]), ("list", [b"5, 5"]), ("twice", [b"5", b"5"]),
        ("two", [b"5", b"6"]), ("words", [b"five"]), ("empty", [b""]), ("spaced", [b"  5  "]), ("decimal", [b"5.0"]),
        ("large", [b"99999999999999999999999"]), ("zeros", [b"0005"]),
    ])
    request.headers += [(b"Content-Length", line) for line in lines]
    request.body = b"hello"
    request.fault("length " + kind)


@fault
def encoding(request):
    request.drop(b"content-length")
    request.drop(b"transfer-encoding")
    kind, lines = request.pick([
        ("and length", [(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"5")]),
        ("length and", [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")]),
        ("twice", [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")]),
        ("listed twice", [(b"Transfer-Encoding", b"chunked, chunked")]),
        ("identity", [(b"Transfer-Encoding", b"identity")]),
        ("gzip", [(b"Transfer-Encoding", b"gzip, chunked")]),
        ("last", [(b"Transfer-Encoding", b"chunked, gzip")]),
        ("odd", [(b"Transfer-Encoding", b"xchunked")]),
        ("quoted", [(b"Transfer-Encoding", b'"chunked"')]),
        ("vertical", [(b"Transfer-Encoding", b"\x0bchunked")]),
        ("folded", [(b"Transfer-Encoding", b"\r\n chunked")]),
    ])
    request.headers += lines
    request.body = b"5\r\nhello\r\n0\r\n\r\n"
    request.fault("encoding " + kind)


@fault
def chunks(request):
    request.drop(b"content-length")
    request.drop(b"transfer-encoding")
    request.headers.append((b"Transfer-Encoding", b"chunked"))
    kind, request.body = request.pick([
        ("words", b"five\r\nhello\r\n0\r\n\r\n"), ("signed", b"+5\r\nhello\r\n0\r\n\r\n"), ("prefixed", b"0x5\r\nhello\r\n0\r\n\r\n"),
        ("spaced", b"5 \r\nhello\r\n0\r\n\r\n"), ("line feed", b"5\nhello\n0\n\n"), ("no end", b"5\r\nhelloXX0\r\n\r\n"),
        ("large", b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"), ("empty", b"\r\nhello\r\n0\r\n\r\n"), ("short", b"5\r\nhel"),
        ("no last", b"5\r\nhello\r\n"), ("zeros", b"00005\r\nhello\r\n000\r\n\r\n"), ("extension", b"5;" + b"e" * 5000 + b"\r\nhello\r\n0\r\n\r\n"),
        ("extension line feed", b"5;a\nb\r\nhello\r\n0\r\n\r\n"), ("trailer", b"0\r\nX Y: z\r\n\r\n"), ("hidden", b"0\r\nContent-Length: 5\r\n\r\n"),
    ])
    request.fault("chunks " + kind)


@fault
def short(request):
    request.drop(b"content-length")
    request.drop(b"transfer-encoding")
    request.headers.append((b"Content-Length", b"50"))
    request.body = b"too short"
    request.fault("short")


@fault
def more(request):
    request.drop(b"content-length")
    request.drop(b"transfer-encoding")
    request.headers.append((b"Content-Length", b"5"))
    kind, rest = request.pick([("garbage", b"\x00\x01"), ("lines", b"\r\n\r\n"), ("request", b"GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")])
    request.body = b"hello" + rest
    request.fault("more " + kind)


@fault
def expect(request):
    request.headers.append((b"Expect", request.pick([b"100-continue", b"200-maybe", b"100-Continue"])))
    request.fault("expect")


@fault
def upgrade(request):
    request.headers += [(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAMAAABkAAQAAP__")]
    request.fault("upgrade")


def answers(address, request):
    """The answers to a request: status, header lines and body of each, and how the connection ended."""
    family, address = parse(address)
    connection = socket.socket(family)
    connection.settimeout(10)
    heard = b""
    try:
        connection.connect(address)
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        while data := connection.recv(65536):
            heard += data
        end = "end"
    except TimeoutError:
        end = "timeout"
    except OSError:
        end = "reset"
    connection.close()
    found = []
    while heard:
        head, _, rest = heard.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        if not line.startswith("HTTP/1."):
            # What follows an answer that ends the connection is not looked at.
            break
        status = int(line.split(" ")[1])
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        length = int(dict(headers).get("content-length", 0))
        if status < 200 or request.startswith(b"HEAD "):
            length = 0
        body, heard = rest[:length], rest[length:]
        found.append((status, headers, body))
    return found, end


def understood(answer):
    """What an answer says, without what is for one hop only."""
    status, headers, body = answer
    kept = sorted(line for line in headers if line[0] not in HOP_BY_HOP | {"content-length", "date"})
    if status != 200 or not body:
        return [status, kept if status == 200 else None, None]
    seen = json.loads(body)
    named = {b.strip().lower() for a, b in pairs(seen["headers"]) if a.lower() == "connection" for b in b.split(",")}
    lines = [(a.lower(), b) for a, b in pairs(seen["headers"]) if a.lower() not in HOP_BY_HOP | named]
    seen["trailers"] = [(a.lower(), b) for a, b in pairs(seen["trailers"])]
    seen["headers"] = sorted(line for line in lines if line[0] != "content-length")
    return [status, [line for line in kept], seen]


def pairs(flat):
    return zip(flat[::2], flat[1::2])


# What the agent refuses though the server takes it: the fault, and the reason that it must give.
REFUSED = {
    # Which of them counts is up to who reads them (RFC 9112, 3.2).
    "host twice": "malformed_host",
    # Nobody can tell where such a body ends who does not know the coding.
    "encoding gzip": "malformed_transfer_encoding",
    # HTTP/1.0 has no chunks (RFC 9112, 6.1).
    "version HTTP/1.0": "malformed_transfer_encoding",
    # Other versions than those that are understood.
    "version HTTP/0.9": "malformed_request_line",
    "version HTTP/2.0": "malformed_request_line",
    # Never sent; read by some, and not by others.
    "target fragment": "malformed_request_line",
    # With more than 128 in all.
    "headers many": "headers_too_large",
    # Nobody needs 4 KiB of them.
    "chunks extension": "malformed_chunk_size",
    # The agent is no forward proxy.
    "method CONNECT": "connect_method",
}


def is_refused(request, direct, proxied, reasons):
    """Refused by the agent: the list says why."""
    return len(reasons) == 1 and any(REFUSED.get(fault) == reasons[0] for fault in request.faults)


def is_after(request, direct, proxied, reasons):
    """What follows a request that is whole is looked at when that one is answered; the server does at once."""
    answered = [side[0][0] if side else None for side in (direct, proxied)]
    return any(fault.startswith("more") for fault in request.faults) and answered == [400, 200]


def is_undeclared(request, direct, proxied, reasons):
    """Trailers that no `Trailer` header announces are dropped, as intermediaries may (RFC 9110, 6.5.1)."""
    def without(side):
        return [[status, headers, seen and {**seen, "trailers": []}] for status, headers, seen in side]
    declared = any(name == b"Trailer" for name, _ in request.headers)
    return not declared and without(direct) == without(proxied)


def is_reset(request, direct, proxied, reasons):
    """A reset takes with it what was not read yet, on either connection: the answer may be lost, or not."""
    return request.ends[0] == "reset" and (not proxied or reasons == ["upstream_reset"])


EXPLAINED = [is_refused, is_after, is_undeclared, is_reset]


def compare(direct, proxied, seed):
    request = Request(seed)
    one, other = answers(direct, request.bytes()), answers(proxied, request.bytes())
    request.ends = [one[1], other[1]]
    ours = [answer for answer in one[0] if answer[0] >= 200], [answer for answer in other[0] if answer[0] >= 200]
    seen = [[understood(answer) for answer in side] for side in ours]
    if seen[0] == seen[1]:
        return "same", None
    reasons = [dict(answer[1]).get("x-mesh-reason") for answer in ours[1]]
    for explains in EXPLAINED:
        if explains(request, seen[0], seen[1], reasons):
            return explains.__name__, None
    case = {"seed": seed, "faults": sorted(request.faults), "direct": seen[0], "proxied": seen[1], "reasons": reasons, "ends": request.ends}
    return None, case


def main():
    direct, proxied, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    found, unexplained = collections.Counter(), []
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for reason, case in pool.map(lambda number: compare(direct, proxied, seed * 1_000_000 + number), range(count)):
            if case:
                unexplained.append(case)
            else:
                found[reason] += 1
    print(json.dumps({"found": found, "unexplained": len(unexplained), "examples": unexplained[:20]}))


main()
