"""What may befall what replicas share by, and one of several that decide."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis

from fault import NOTICED_S, SHORT_S, Befall, Fault, beside
from fault_plan import Form
from fault_stack import FaultStack
from process_children import children_of

SHARED_AGAIN_S = 20.0
"""Decisions never stop; this is for sharing, which says `degraded` for 5 s after what it could not
read, and knocks at a store that refuses it more and more seldom."""
BEGUN_S = 30.0
"""Decisions never stop; this is for a worker begun anew, which takes as long as any start."""
PASSWORD = "another"


def store_of(stack: FaultStack, password: str | None = None) -> redis.Redis:
    assert stack.redis is not None
    return redis.Redis(port=stack.redis.port, password=password)


@asynccontextmanager
async def store_killed(stack: FaultStack) -> AsyncIterator[None]:
    assert stack.redis is not None
    stack.redis.kill()
    yield
    stack.redis.start()
    await stack.redis.ready()


@asynccontextmanager
async def store_paused(stack: FaultStack) -> AsyncIterator[None]:
    assert stack.redis is not None
    stack.redis.freeze()
    yield
    stack.redis.thaw()


@asynccontextmanager
async def store_flushed(stack: FaultStack) -> AsyncIterator[None]:
    """It forgets everything, and cuts its connections, again and again."""

    async def flush() -> None:
        store = store_of(stack)
        while True:
            store.flushall()
            for kind in ("normal", "pubsub"):
                store.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await asyncio.sleep(0.2)

    async with beside(flush()):
        yield


@asynccontextmanager
async def store_full(stack: FaultStack) -> AsyncIterator[None]:
    store = store_of(stack)
    store.config_set("maxmemory-policy", "noeviction")
    store.config_set("maxmemory", 1)
    yield
    store.config_set("maxmemory", 0)


@asynccontextmanager
async def store_wants_a_password(stack: FaultStack) -> AsyncIterator[None]:
    store = store_of(stack)
    store.config_set("requirepass", PASSWORD)
    store = store_of(stack, PASSWORD)
    for kind in ("normal", "pubsub"):
        store.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    yield
    store.config_set("requirepass", "")


@asynccontextmanager
async def store_poisoned(stack: FaultStack) -> AsyncIterator[None]:
    """Somebody publishes garbage where frames are: a hundred times a second, of any length."""
    store, draw = store_of(stack), random.Random(0)

    async def publish() -> None:
        channels = store.pubsub_channels()
        assert channels
        while True:
            for channel in channels:
                store.publish(channel, draw.randbytes(draw.choice((0, 1, 7, 300, 100_000))))
            await asyncio.sleep(0.01)

    async with beside(publish()):
        yield


@asynccontextmanager
async def replica_killed(stack: FaultStack) -> AsyncIterator[None]:
    stack.processes[1].kill()
    yield
    stack.processes[1].start()
    await stack.processes[1].ready()


@asynccontextmanager
async def replica_frozen(stack: FaultStack) -> AsyncIterator[None]:
    stack.processes[1].freeze()
    yield
    stack.processes[1].thaw()


def worker_struck(number: signal.Signals) -> Befall:
    """One of two workers gets a signal; the parent begins another, or it goes on."""

    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
        worker = children_of(stack.service.pid, "lodestar_extproc")[-1]
        os.kill(worker, number)
        yield
        if number is signal.SIGSTOP:
            os.kill(worker, signal.SIGCONT)

    return befall


def in_store(name: str, befall: Befall, lasts_s: float = SHORT_S) -> Fault:
    return Fault(name, befall, "store", Form.REPLICAS, lasts_s=lasts_s, recovery_s=SHARED_AGAIN_S)


def of_workers(name: str, befall: Befall) -> Fault:
    return Fault(name, befall, "worker", Form.WORKERS, lasts_s=NOTICED_S, recovery_s=BEGUN_S)


FAULTS = (
    in_store("the Redis between replicas is killed", store_killed),
    in_store("the Redis between replicas is paused", store_paused, NOTICED_S),
    in_store("the Redis between replicas is flushed, and cuts connections", store_flushed),
    in_store("the Redis between replicas is full", store_full),
    in_store("the Redis between replicas wants a password", store_wants_a_password),
    in_store("garbage on the channels between replicas", store_poisoned),
    Fault("one of two replicas is killed", replica_killed, "replica", Form.REPLICAS, lasts_s=3.0),
    Fault("one of two replicas is frozen", replica_frozen, "replica", Form.REPLICAS, lasts_s=3.0),
    of_workers("one of two workers is killed", worker_struck(signal.SIGKILL)),
    of_workers("one of two workers is frozen", worker_struck(signal.SIGSTOP)),
)
