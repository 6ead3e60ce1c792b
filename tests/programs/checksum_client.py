"""Opens many connections to many servers and checks every byte both ways.

MODE COUNT LARGEST NAME=IP:PORT...

MODE is `sequential` (one after the other), `concurrent` (all open before the first byte is sent) or `single` (COUNT
transfers of exactly LARGEST bytes, one after the other). Sizes are spread evenly over the orders of magnitude from 1
byte to LARGEST. Prints JSON: connections made, bytes up and down, failures.
"""

import asyncio
import hashlib
import json
import random
import struct
import sys

from peer import Pattern, parse, text_of

MODE, COUNT, LARGEST = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
SERVERS = [argument.partition("=")[::2] for argument in sys.argv[4:]]
HEADER = struct.Struct("!QQQ")
CHOICE = random.Random(LARGEST)


def size():
    if MODE == "single":
        return LARGEST
    return max(1, int(LARGEST ** CHOICE.random()))


class Transfer:
    def __init__(self, number):
        self.name, self.address = SERVERS[number % len(SERVERS)]
        self.up, self.down, self.seed = size(), size(), CHOICE.getrandbits(40)

    async def open(self):
        host, port = parse(self.address)[1]
        self.reader, self.writer = await asyncio.open_connection(host, port, limit=1 << 20)

    async def send(self):
        self.writer.write(HEADER.pack(self.up, self.down, self.seed))
        pattern = Pattern(self.seed, self.up)
        for block in pattern.blocks():
            self.writer.write(block)
            await self.writer.drain()
        return pattern.digest()

    async def receive(self):
        name = (await self.reader.readline()).decode().strip()
        digest, left = hashlib.sha256(), self.down
        while left:
            chunk = await self.reader.read(min(left, 1 << 18))
            if not chunk:
                raise EOFError(f"{left} bytes of {self.down} missing")
            digest.update(chunk)
            left -= len(chunk)
        return name, digest.hexdigest(), (await self.reader.readline()).decode().strip()

    async def exchange(self):
        """What was wrong, or none."""
        peer = text_of(self.writer.get_extra_info("peername"))
        try:
            sent, (name, received, acknowledged) = await asyncio.gather(self.send(), self.receive())
        except (OSError, EOFError) as error:
            return f"{self.address} up {self.up} down {self.down}: {error!r}"
        finally:
            self.writer.close()
        if peer != self.address:
            return f"asked {self.address}, getpeername says {peer}"
        if name != self.name:
            return f"asked {self.address} of {self.name}, reached {name}"
        if acknowledged != sent:
            return f"{self.address}: {self.up} bytes up arrived changed"
        if received != Pattern(self.seed + 1, self.down).digest():
            return f"{self.address}: {self.down} bytes down arrived changed"
        return None


async def main():
    transfers = [Transfer(number) for number in range(COUNT)]
    failures = []
    if MODE == "concurrent":
        # No more at once than the accept queues take.
        gate = asyncio.Semaphore(200)

        async def open_one(transfer):
            async with gate:
                await transfer.open()
        await asyncio.gather(*(open_one(transfer) for transfer in transfers))
        outcomes = await asyncio.gather(*(transfer.exchange() for transfer in transfers))
        failures = [outcome for outcome in outcomes if outcome]
    else:
        for transfer in transfers:
            try:
                await transfer.open()
                failure = await transfer.exchange()
            except OSError as error:
                failure = f"{transfer.address}: {error!r}"
            if failure:
                failures.append(failure)
    print(json.dumps({"connections": len(transfers), "up": sum(t.up for t in transfers),
                      "down": sum(t.down for t in transfers), "failed": len(failures), "failures": failures[:10]}))


asyncio.run(main())
