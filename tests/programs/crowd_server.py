"""Holds as many connections as come: NAME PORT. Says its name first, then waits for the client to close."""

import asyncio
import resource
import sys

NAME, PORT = sys.argv[1], int(sys.argv[2])


class Peer(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(f"{NAME}\n".encode())


async def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = await asyncio.get_running_loop().create_server(Peer, "0.0.0.0", PORT, backlog=4096)
    await server.serve_forever()


asyncio.run(main())
