"""Checks what it receives and sends what the client asks for: NAME PORT...

The client sends three 64-bit numbers (bytes up, bytes down, seed) and the bytes; the server answers with a line of
its name, the bytes down, and a line with the digest of what it got. Both directions run at once.
"""

import asyncio
import hashlib
import resource
import struct
import sys

from peer import Pattern

NAME = sys.argv[1]
HEADER = struct.Struct("!QQQ")


async def receive(reader, size):
    digest = hashlib.sha256()
    while size:
        chunk = await reader.read(min(size, 1 << 18))
        if not chunk:
            raise EOFError
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


async def send(writer, down, seed):
    writer.write(f"{NAME}\n".encode())
    for block in Pattern(seed + 1, down).blocks():
        writer.write(block)
        await writer.drain()


async def handle(reader, writer):
    try:
        up, down, seed = HEADER.unpack(await reader.readexactly(HEADER.size))
        digest, _ = await asyncio.gather(receive(reader, up), send(writer, down, seed))
        writer.write(f"{digest}\n".encode())
        await writer.drain()
        # The client closes first; whatever else it sends would be a byte too many.
        extra = await reader.read(1)
        if extra:
            print(f"{NAME}: bytes after the end", file=sys.stderr)
    except (OSError, EOFError, asyncio.IncompleteReadError) as error:
        print(f"{NAME}: {error!r}", file=sys.stderr)
    finally:
        writer.close()


async def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    servers = [await asyncio.start_server(handle, "0.0.0.0", int(port), backlog=4096, limit=1 << 20)
               for port in sys.argv[2:]]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
