"""Sends requests of several priorities at fixed rates, whatever becomes of them.

`ADDRESS PATH SECONDS PRIORITY=RATE...` prints the statuses for each priority, as JSON. Each request has
a user of its own, and a connection for as long as the server keeps it.
"""

import collections
import http.client
import json
import queue
import sys
import threading
import time

WORKERS = 64


def main(address, path, seconds, *rates):
    work = queue.Queue()
    seen = collections.defaultdict(collections.Counter)
    lock = threading.Lock()

    def worker():
        connection = http.client.HTTPConnection(address, timeout=5)
        while (task := work.get()) is not None:
            priority, number = task
            try:
                headers = {"x-mesh-priority": priority, "x-user-id": str(number)}
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except OSError as error:
                status = type(error).__name__
                connection.close()
            with lock:
                seen[priority][status] += 1

    workers = [threading.Thread(target=worker, daemon=True) for _ in range(WORKERS)]
    for each in workers:
        each.start()
    due = []
    for rate in rates:
        priority, per_second = rate.split("=")
        count = int(float(per_second) * float(seconds))
        due += [(index / float(per_second), priority, index) for index in range(count)]
    begun = time.monotonic()
    for at, priority, number in sorted(due):
        time.sleep(max(0, begun + at - time.monotonic()))
        work.put((priority, number))
    for _ in workers:
        work.put(None)
    for each in workers:
        each.join(20)
    print(json.dumps(seen))


main(*sys.argv[1:])
