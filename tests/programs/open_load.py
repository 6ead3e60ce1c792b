"""Sends requests at a rate, whatever becomes of them: each with a connection of its own.

`ADDRESS SECONDS RATE [FROM UNTIL RATE]`: from and until are seconds, between which the other rate holds. One in
twenty is critical. An answer 200 within a second is useful. Prints, as JSON, for each second how many were sent
and how many answers were useful, and the same of the critical ones.
"""

import asyncio
import json
import sys
import time

USEFUL = 1.0


async def ask(host, port, headers):
    begun = time.monotonic()
    try:
        async with asyncio.timeout(3):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /work HTTP/1.1\r\nHost: load\r\n" + headers + b"\r\n")
                line = await reader.readline()
                return line.split(b" ")[1:2] == [b"200"] and time.monotonic() - begun <= USEFUL
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def main(address, seconds, rate, begin="0", end="0", other="0"):
    host, port = address.rsplit(":", 1)
    seen = [[0, 0, 0, 0] for _ in range(int(seconds))]
    tasks = []

    async def one(second, number):
        is_critical = number % 20 == 0
        headers = b"x-mesh-priority: critical\r\n" if is_critical else b"x-user-id: %d\r\n" % number
        is_useful = await ask(host, int(port), headers)
        seen[second][0] += 1
        seen[second][1] += is_useful
        seen[second][2] += is_critical
        seen[second][3] += is_critical and is_useful

    print("begun", flush=True)
    begun, due, number = time.monotonic(), 0.0, 0
    while due < float(seconds):
        await asyncio.sleep(max(0, begun + due - time.monotonic()))
        tasks.append(asyncio.create_task(one(int(due), number)))
        number += 1
        due += 1 / float(other if float(begin) <= due < float(end) else rate)
    await asyncio.gather(*tasks)
    print(json.dumps(seen), flush=True)


asyncio.run(main(*sys.argv[1:]))
