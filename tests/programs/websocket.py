"""WebSockets by a library that nobody here wrote: `serve HOST PORT` echoes; `talk URL` says what came of a
conversation, as JSON."""

import asyncio
import json
import sys

import websockets


async def echo(socket):
    async for message in socket:
        if message == "end":
            await socket.close(4001, "as asked")
        await socket.send(message)


async def serve(host, port):
    async with websockets.serve(echo, host, int(port), max_size=None):
        print("ready", flush=True)
        await asyncio.Future()


async def talk(url):
    seen = {}
    async with websockets.connect(url, max_size=None) as socket:
        await socket.send("héllo")
        seen["text"] = await socket.recv()
        large = bytes(range(256)) * 8192
        await socket.send(large)
        seen["binary"] = await socket.recv() == large
        # More under way than any buffer between them holds.
        sending = asyncio.gather(*(socket.send(f"{number}" * 10_000) for number in range(200)))
        answers = [await socket.recv() for _ in range(200)]
        await sending
        seen["many"] = [answer[0] for answer in answers] == [str(number)[0] for number in range(200)]
        await asyncio.wait_for(await socket.ping(b"are you there"), 5)
        seen["pong"] = True
        await socket.send("end")
        try:
            await socket.recv()
        except websockets.ConnectionClosed as closed:
            seen["close"] = [closed.rcvd.code, closed.rcvd.reason]
    print(json.dumps(seen))


asyncio.run({"serve": serve, "talk": talk}[sys.argv[1]](*sys.argv[2:]))
