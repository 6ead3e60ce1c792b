"""A gRPC server without generated code: messages are bytes. `ADDRESS`

unary     gives the request back, with what the server sees of the call in trailing metadata
down      a stream of as many messages as the request says
up        how many bytes a stream of requests had
both      each message back as it comes
fail      UNAVAILABLE for the first N calls with the key K: the request is `K N`
abort     the status whose number is the request, after an answer began (so in the trailers of a body)
serving   makes the health service say SERVING or not: 1 or 0
sleep     answers after as many milliseconds as the request says
"""

import collections
import sys
import time
from concurrent import futures

import grpc

CALLS = collections.Counter()
HEALTH = {"status": b"\x08\x01"}


def unary(request, context):
    seen = dict(context.invocation_metadata())
    context.set_trailing_metadata((
        ("left-ms", str(int((context.time_remaining() or 0) * 1000))),
        ("own", seen.get("own", "")),
    ))
    return request


def down(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def up(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def both(requests, context):
    yield from requests


def fail(request, context):
    key, number = request.decode().split()
    CALLS[key] += 1
    if CALLS[key] <= int(number):
        context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
    return str(CALLS[key]).encode()


def abort(request, context):
    yield b"begun"
    code = next(code for code in grpc.StatusCode if code.value[0] == int(request))
    context.abort(code, "as asked")


def serving(request, context):
    HEALTH["status"] = b"\x08\x01" if request == b"1" else b"\x08\x02"
    return request


def check(request, context):
    """grpc.health.v1.Health/Check: field 1 of the answer, 1 or 2."""
    return HEALTH["status"]


def sleep(request, context):
    time.sleep(int(request) / 1000)
    return request


HANDLERS = {
    "unary": grpc.unary_unary_rpc_method_handler(unary),
    "down": grpc.unary_stream_rpc_method_handler(down),
    "up": grpc.stream_unary_rpc_method_handler(up),
    "both": grpc.stream_stream_rpc_method_handler(both),
    "fail": grpc.unary_unary_rpc_method_handler(fail),
    "abort": grpc.unary_stream_rpc_method_handler(abort),
    "serving": grpc.unary_unary_rpc_method_handler(serving),
    "sleep": grpc.unary_unary_rpc_method_handler(sleep),
}

server = grpc.server(futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers((
    grpc.method_handlers_generic_handler("Test", HANDLERS),
    grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}),
))
assert server.add_insecure_port(sys.argv[1])
server.start()
print("ready", flush=True)
server.wait_for_termination()
