"""Which simulated servers to run, and running them together in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from lodestar_extproc.simulator.accelerators import ACCELERATORS, EngineSpec
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS, DEFAULT_MODEL
from lodestar_extproc.simulator.engine import warm_up
from lodestar_extproc.simulator.server import SimulatedServer

MAX_INSTANCES = 256  # one process serves them all, each on a port of its own


def parse_instances(
    text: str, kv_capacity_tokens: int | None = None, max_model_tokens: int | None = None
) -> tuple[EngineSpec, ...]:
    """The specs that a list like `a30:3,v100:1` names; `a30` alone is one.

    Raises:
        ValueError: an unknown accelerator, or an impossible number.

    >>> [spec.accelerator for spec in parse_instances("a30:2,v100")]
    ['a30', 'a30', 'v100']
    """
    specs: list[EngineSpec] = []
    for part in text.split(","):
        name, _, count = part.strip().partition(":")
        if name not in ACCELERATORS:
            raise ValueError(f"unknown accelerator {name!r}; known: {', '.join(ACCELERATORS)}")
        if not (count or "1").isdecimal() or not 1 <= int(count or 1) <= MAX_INSTANCES:
            raise ValueError(f"{part.strip()!r}: the number must be from 1 to {MAX_INSTANCES}")
        spec = _with_capacity(ACCELERATORS[name], kv_capacity_tokens)
        if max_model_tokens is not None:
            spec = replace(spec, max_model_tokens=max_model_tokens)
        specs += [spec] * int(count or 1)
    if len(specs) > MAX_INSTANCES:
        raise ValueError(f"{len(specs)} instances; at most {MAX_INSTANCES} fit one process")
    return tuple(specs)


def _with_capacity(spec: EngineSpec, kv_capacity_tokens: int | None) -> EngineSpec:
    if kv_capacity_tokens is None:
        return spec
    if kv_capacity_tokens < BLOCK_TOKENS:
        raise ValueError(f"a KV cache holds at least one block of {BLOCK_TOKENS} tokens")
    return replace(spec, kv_blocks=kv_capacity_tokens // BLOCK_TOKENS)


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """How a group of simulated servers runs.

    Attributes:
        port: of the first server, the others follow; 0 takes free ones.
        speed: how many times faster than the accelerator.
        seed: instance i draws its noise from seed + i.
        cache_answers: whether the next turn of a chat hits the answer's blocks too.
        grace_s: time to finish requests when stopped.
    """

    host: str = "127.0.0.1"
    port: int = 0
    model: str = DEFAULT_MODEL
    speed: float = 1.0
    seed: int = 0
    cache_answers: bool = True
    grace_s: float = 0.0


@asynccontextmanager
async def serving(
    specs: Sequence[EngineSpec], options: ServingOptions
) -> AsyncIterator[tuple[SimulatedServer, ...]]:
    """One server for each spec, on the running loop, stopped when left.

    Raises:
        OSError: a port is taken.
    """
    warm_up()
    servers = tuple(
        SimulatedServer(
            spec,
            model=options.model,
            speed=options.speed,
            seed=options.seed + i,
            cache_answers=options.cache_answers,
            grace_s=options.grace_s,
        )
        for i, spec in enumerate(specs)
    )
    try:
        for i, server in enumerate(servers):
            await server.start(options.host, options.port + i if options.port else 0)
        yield servers
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


async def serve_instances(
    specs: Sequence[EngineSpec],
    options: ServingOptions,
    stop: asyncio.Event,
    ready: Callable[[tuple[SimulatedServer, ...]], None],
) -> None:
    """Serve until *stop* is set; *ready* is told the servers once all listen.

    Raises:
        OSError: a port is taken.
    """
    async with serving(specs, options) as servers:
        ready(servers)
        await stop.wait()
