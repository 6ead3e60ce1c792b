"""Calls every kind of method of grpc_server.py at ADDRESS and prints what came of it as JSON."""

import json
import sys
import time

import grpc

channel = grpc.insecure_channel(sys.argv[1])
seen = {}


def call(name, kind, request, **more):
    return getattr(channel, kind)(f"/Test/{name}")(request, **more)


def status(name, request, kind="unary_unary", **more):
    """The status, and the reason if it is the agent's own."""
    try:
        answer = call(name, kind, request, **more)
        answers = [answer] if kind == "unary_unary" else list(answer)
        return ["OK", b",".join(answers).decode()]
    except grpc.RpcError as error:
        known = dict((error.trailing_metadata() or ()) + (error.initial_metadata() or ()))
        return [error.code().name, known.get("x-mesh-reason", "")]


method = channel.unary_unary("/Test/unary")
answer, done = method.with_call(b"hello", timeout=5, metadata=(("own", "mine"),))
trailing = dict(done.trailing_metadata())
seen["unary"] = [answer.decode(), trailing["own"], int(trailing["left-ms"])]
seen["large"] = len(call("unary", "unary_unary", b"x" * 3_000_000))
seen["down"] = [len(list(call("down", "unary_stream", b"1000")))]
seen["up"] = int(call("up", "stream_unary", (b"y" * 1000 for _ in range(1000))))
# Each answer is there before the next request is made.
seen["both"] = []


def in_turn():
    for number in range(50):
        while len(seen["both"]) < number:
            time.sleep(0.001)
        yield str(number).encode()


for answer in call("both", "stream_stream", in_turn(), timeout=10):
    seen["both"].append(int(answer))
seen["fail"] = status("fail", b"a 2")
seen["gone"] = status("fail", b"b 9")
seen["abort"] = [status("abort", str(number).encode(), "unary_stream")[0] for number in range(1, 17)]
seen["own deadline"] = status("sleep", b"5000", timeout=0.3)
seen["unknown"] = status("nothing", b"")
seen["slow"] = status("sleep", sys.argv[2].encode())
print(json.dumps(seen))
