"""a_port(): one that stays free until its process listens, and while it is restarted."""

from __future__ import annotations

import os
import random
import socket
from collections import deque

PORTS = range(20_000, 32_000)
"""Below those that systems hand out themselves, from 32768 or 49152 on: no neighbour gets one."""
MOST_WORKERS = 16
"""Test processes side by side; each draws from ports of its own."""
LATELY_GIVEN: deque[int] = deque(maxlen=300)
"""Nobody may listen there yet: the same one is given to no two who are about to."""


def a_port() -> int:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    draw = random.SystemRandom()  # a seeded one would draw alike in every test
    while True:
        port = draw.choice(PORTS[worker % MOST_WORKERS :: MOST_WORKERS])
        if port in LATELY_GIVEN:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        LATELY_GIVEN.append(port)
        return port
