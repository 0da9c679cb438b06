"""What KV events cost the process that serves: CPU of its event loop's thread and of ZeroMQ's.

Eight engines of their own process each publish a thousand blocks a second, as vLLM does: one
message an engine step. They are followed as by `serve`, into a real fleet whose requests they are.

    python benchmarks/kv_events_cost.py
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from dataclasses import dataclass

import msgpack
import uvloop
import zmq

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.demo.processes import free_ports
from lodestar_extproc.endpoint import Endpoint, EndpointMetrics
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.fleet.kv_events.following import KvFollowing
from lodestar_extproc.kv_events_source import KvEventsSource
from lodestar_extproc.request import InferenceRequest, RequestKind, hash_blocks
from lodestar_extproc.supervision import Supervisor

BLOCK_TOKENS = 16
STEP_BLOCKS = 20
"""Of one message: 50 steps a second, of 320 tokens each."""
CAPACITY_BLOCKS = 5_000
PROMPT_BLOCKS = 200


def publish(port: int, blocks_per_s: int, until_s: float) -> None:
    """Store prompts of `PROMPT_BLOCKS`, and remove as many once the cache is full."""
    socket = zmq.Context().socket(zmq.PUB)
    socket.bind(f"tcp://127.0.0.1:{port}")
    number, block, removed = 0, 1, 1
    due_s = time.monotonic()
    while due_s < until_s:
        events = []
        for n in range(STEP_BLOCKS // 4):
            first = block + 4 * n
            parent = None if first % PROMPT_BLOCKS == 1 else first - 1
            tokens = [(first * 7919 + i * 104_729) % 128_000 for i in range(4 * BLOCK_TOKENS)]
            events.append(
                {
                    "type": "BlockStored",
                    "block_hashes": [_hash(first + i) for i in range(4)],
                    "parent_block_hash": None if parent is None else _hash(parent),
                    "token_ids": tokens,
                    "block_size": BLOCK_TOKENS,
                    "lora_id": None,
                    "medium": "GPU",
                    "lora_name": None,
                    "extra_keys": [None] * 4,
                    "group_idx": 0,
                    "kv_cache_spec_kind": "full_attention",
                }
            )
        block += STEP_BLOCKS
        while block - removed > CAPACITY_BLOCKS:
            gone = {"type": "BlockRemoved", "block_hashes": [_hash(removed)], "medium": "GPU"}
            events.append(gone | {"group_idx": 0})
            removed += 1
        payload = msgpack.packb([time.time(), events, 0])
        socket.send_multipart([b"", number.to_bytes(8, "big"), payload])
        number += 1
        due_s += STEP_BLOCKS / blocks_per_s
        time.sleep(max(0.0, due_s - time.monotonic()))


def _hash(block: int) -> int:
    return (block * 0x9E3779B97F4A7C15) % (1 << 63)


@dataclass
class Spent:
    """Seconds of CPU and of time, and what came of it."""

    loop_s: float
    process_s: float
    wall_s: float
    events: int
    gaps: int
    joined: int


async def follow(ports: list[int], seconds: float, requests_per_s: float) -> Spent:
    """Follow them for so long, while requests of the right length are sent and end."""
    endpoints = [
        Endpoint(f"127.0.0.1:{port}", kv_events=KvEventsSource(f"tcp://127.0.0.1:{port}"))
        for port in ports
    ]
    fleet = Fleet(LiveSettings(PoolSettings()), endpoints)
    for each in endpoints:
        metrics = EndpointMetrics(kv_capacity_tokens=float(CAPACITY_BLOCKS * BLOCK_TOKENS))
        fleet.record_metrics(each.address, metrics, time.monotonic())
    following = KvFollowing(fleet, Supervisor(), time.monotonic)
    following.set_endpoints(endpoints)
    running = asyncio.create_task(following.run())
    asking = [asyncio.create_task(ask(fleet, e.address, requests_per_s)) for e in endpoints]
    await asyncio.sleep(2.0)
    began = time.thread_time(), time.process_time(), time.monotonic()
    n_before = sum(counts.events for counts in following.counts.values())
    await asyncio.sleep(seconds)
    spent = Spent(
        time.thread_time() - began[0],
        time.process_time() - began[1],
        time.monotonic() - began[2],
        sum(counts.events for counts in following.counts.values()) - n_before,
        sum(counts.gaps for counts in following.counts.values()),
        sum(counts.joined for counts in fleet.followed.counts.values()),
    )
    for task in (running, *asking):
        task.cancel()
    await asyncio.gather(running, *asking, return_exceptions=True)
    return spent


async def ask(fleet: Fleet, address: str, requests_per_s: float) -> None:
    """Requests that are never found again, each as long as a prompt there."""
    n = 0
    while True:
        n += 1
        prompt = f"{address} {n} ".encode() * 1000
        prompt = prompt[: PROMPT_BLOCKS * BLOCK_TOKENS * 4]
        request = InferenceRequest(
            *("m", RequestKind.COMPLETIONS, hash_blocks(prompt), len(prompt)),
            *(len(prompt) / 4.0, True),
        )
        key = f"{address}-{n}"
        fleet.dispatch(key, request, address, uncached_tokens=1.0, at_s=time.monotonic())
        await asyncio.sleep(1.0 / requests_per_s)
        fleet.release(key, time.monotonic())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--blocks-per-s", type=int, default=1000, help="of each engine")
    parser.add_argument("--seconds", type=float, default=15.0)
    asked = parser.parse_args()
    ports = free_ports(asked.engines)
    until_s = time.monotonic() + asked.seconds + 8.0
    context = multiprocessing.get_context("fork")
    engines = [
        context.Process(target=publish, args=(port, asked.blocks_per_s, until_s)) for port in ports
    ]
    for engine in engines:
        engine.start()
    time.sleep(3.0)
    rate = asked.blocks_per_s / PROMPT_BLOCKS
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        spent = runner.run(follow(ports, asked.seconds, rate))
    for engine in engines:
        engine.terminate()
        engine.join()
    print(
        f"{asked.engines} engines, {asked.blocks_per_s} blocks/s each: "
        f"{spent.events / spent.wall_s:.0f} events/s, {spent.gaps} gaps, {spent.joined} joined; "
        f"the event loop's thread {spent.loop_s / spent.wall_s:.2%} of a core, "
        f"the whole process {spent.process_s / spent.wall_s:.2%}"
    )


if __name__ == "__main__":
    main()
