"""A server that can do so much and no more: WORKERS requests at once, MILLISECONDS each. The others wait, and
whether their clients still do is not looked at, as in many servers.

`ADDRESS WORKERS MILLISECONDS`. `/slower?times=N` makes each take so many times as long; `/count` says how many
requests came.
"""

import asyncio
import sys
import urllib.parse

STATE = {"times": 1.0, "count": 0}


async def serve(reader, writer, workers, seconds):
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path, _, query = head.split(" ", 2)[1].partition("?")
            body = b""
            if path == "/slower":
                STATE["times"] = float(dict(urllib.parse.parse_qsl(query))["times"])
            elif path == "/count":
                body = str(STATE["count"]).encode()
            else:
                STATE["count"] += 1
                async with workers:
                    await asyncio.sleep(seconds * STATE["times"])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(address, workers, milliseconds):
    host, port = address.rsplit(":", 1)
    workers, seconds = asyncio.Semaphore(int(workers)), float(milliseconds) / 1000
    serving = await asyncio.start_server(
        lambda reader, writer: serve(reader, writer, workers, seconds), host, int(port), backlog=1024
    )
    print("ready", flush=True)
    await serving.serve_forever()


asyncio.run(main(*sys.argv[1:]))
