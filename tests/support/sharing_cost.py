"""What sharing costs a replica: `PYTHONPATH=tests/support python tests/support/sharing_cost.py`.

By CPU time of one process, so that what else the machine does hardly matters: what is noted, written
and taken up of a request, and what a frame takes to a real Redis and from it; the least of several rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders import a_prompt
from lodestar_extproc.config.share import parse_share
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame
from lodestar_extproc.sharing.store import Store
from redis_process import RedisProcess
from sharing_routers import SharingRouter

RATE_PER_S, FRAMES_PER_S = 500.0, 2 / 0.03
IN_A_FRAME = round(RATE_PER_S / FRAMES_PER_S)
REQUESTS, PROMPTS, TOKENS = 3000, 300, 512
FRAMES = 1000


class Clocked:
    """Adds up the time of calls, in seconds."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*args: Any) -> Any:
            began_s = time.process_time()
            try:
                return work(*args)
            finally:
                self.s += time.process_time() - began_s

        return clocked


def of_a_request() -> dict[str, float]:
    """Microseconds to note, write and take up one."""
    sender, receiver = SharingRouter(1), SharingRouter(2)
    note, write, take = Clocked(), Clocked(), Clocked()
    box: Any = sender.shared.outbox
    for name in ("decided", "first_token", "ended"):
        setattr(box, name, note(getattr(box, name)))
    frame = write(lambda at_s: sender.shared.frame(at_s).SerializeToString())
    hear = take(lambda data, at_s: receiver.shared.receive(Frame.FromString(data), at_s))
    prompts = [a_prompt(TOKENS, i) for i in range(PROMPTS)]
    at_s = 1000.0
    for i in range(REQUESTS):
        decision = sender.send(prompts[i % PROMPTS], at_s)
        sender.first_token(decision, at_s + 0.1)
        sender.end(decision, at_s + 0.2)
        at_s += 1 / RATE_PER_S
        if i % IN_A_FRAME == 0:
            hear(frame(at_s), at_s)
    each = {"note": note, "write": write, "take": take}
    return {name: 1e6 * clock.s / REQUESTS for name, clock in each.items()}


async def of_a_frame() -> dict[str, float]:
    """Microseconds to send one and to hear one, of two requests."""
    data = Frame(origin="00000001", number=1)
    for key in "ab":
        data.sent.add(key=key, address="10.0.0.1:8000", block_hashes=range(TOKENS // 16))
    with tempfile.TemporaryDirectory() as folder, RedisProcess(Path(folder)) as redis:
        await redis.ready()
        async with Store(parse_share(redis.url), "pool") as store:
            began_s = time.process_time()
            for _ in range(FRAMES):
                await store.publish(data.SerializeToString())
            sent_s = time.process_time()
            for _ in range(FRAMES):
                while await store.next(1.0) is None:
                    pass  # that was the answer to the subscription
            heard_s = time.process_time()
    return {"send": 1e6 * (sent_s - began_s) / FRAMES, "hear": 1e6 * (heard_s - sent_s) / FRAMES}


def _run(main: Any) -> Any:
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.run(main)
    import uvloop  # noqa: PLC0415

    return uvloop.run(main)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    requests = [of_a_request() for _ in range(options.rounds)]
    frames = [_run(of_a_frame()) for _ in range(options.rounds)]
    least = {name: min(each[name] for each in requests) for name in requests[0]}
    least |= {name: min(each[name] for each in frames) for name in frames[0]}
    for name, us in least.items():
        print(f"{name:6} {us:6.1f} us")
    core = RATE_PER_S * (least["note"] + least["write"] + least["take"])
    core += FRAMES_PER_S * (least["send"] + 2 * least["hear"])  # its own comes back
    print(f"two replicas of {RATE_PER_S:g} requests/s: {core / 1e4:.1f} % of a core each")


if __name__ == "__main__":
    main()
