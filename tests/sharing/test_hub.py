"""The hub that workers of one machine share by: what it passes on, and what it does not."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from lodestar_extproc.config.share import ShareTarget
from lodestar_extproc.sharing import sharer as sharer_module
from lodestar_extproc.sharing.hub import MAX_MESSAGE_BYTES, MAX_UNREAD_BYTES, Hub, HubStore
from lodestar_extproc.sharing.sharer import Sharer, ShareState
from lodestar_extproc.sharing.store import StoreError
from sharing_routers import SharingRouter
from waiting import until


async def test_everyone_on_a_channel_hears_a_message_its_sender_too(tmp_path):
    path = tmp_path / "hub"
    stores = HubStore(path, "a"), HubStore(path, "a"), HubStore(path, "b")
    async with Hub(path), stores[0] as one, stores[1] as two, stores[2] as other:
        await two.publish(b"")
        assert await two.next(5.0) == b""  # by then all are known
        await two.publish(b"x" * 100_000)

        assert await two.next(5.0) == b"x" * 100_000
        assert b"x" * 100_000 in [await one.next(5.0), await one.next(1.0)]
        assert await other.next(0.05) is None


async def test_what_claims_to_be_longer_than_a_frame_ends_its_senders_connection_alone(tmp_path):
    path = tmp_path / "hub"
    async with Hub(path), HubStore(path, "a") as good:
        _, writer = await asyncio.open_unix_connection(path)
        writer.write((1).to_bytes(4) + b"a" + (MAX_MESSAGE_BYTES + 1).to_bytes(4))
        await writer.drain()
        await good.publish(b"still here")

        assert await good.next(5.0) == b"still here"
        writer.close()


async def test_who_does_not_read_misses_some_and_holds_up_nobody(tmp_path):
    path, message = tmp_path / "hub", b"x" * 2**20
    n = 3 * MAX_UNREAD_BYTES // len(message)
    async with Hub(path), HubStore(path, "a") as quick, HubStore(path, "a") as slow:
        await slow.publish(b"joined")
        assert await slow.next(5.0) == b"joined"
        for _ in range(n):
            await quick.publish(message)
            while await quick.next(5.0) != message:
                pass
        got = 0
        while await slow.next(0.5):
            got += 1

        assert 0 < got < n


async def test_without_a_hub_a_store_says_so(tmp_path):
    with pytest.raises(StoreError, match="no hub of workers"):
        async with HubStore(tmp_path / "none", "a"):
            pass


async def test_a_hub_that_ends_leaves_each_alone_and_one_that_begins_lets_them_share(tmp_path):
    path = tmp_path / "hub"
    target = ShareTarget(hub=path)
    replicas = [SharingRouter(number) for number in (1, 2)]
    sharers = [Sharer("pool", target, each.shared, each.told) for each in replicas]
    tasks = [asyncio.create_task(sharer.run()) for sharer in sharers]
    a, b = replicas
    try:
        async with Hub(path):
            await until(lambda: all(s.state is ShareState.SHARED and s.n_peers for s in sharers))
            decision = a.send()
            await until(lambda: sum(b.in_flight()) == 1)
        await until(lambda: all(s.state is ShareState.ALONE for s in sharers))
        assert sum(b.in_flight()) == 0
        path.unlink(missing_ok=True)
        async with Hub(path):
            await until(lambda: sum(b.in_flight()) == 1)
            a.end(decision)
            await until(lambda: sum(b.in_flight()) == 0)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class SwallowingStore:
    """Fails to connect, and takes being cancelled meanwhile for that failure."""

    async def __aenter__(self):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)
        raise StoreError("no store")

    async def __aexit__(self, *_):
        return None


async def test_sharing_ends_when_it_is_told_to_though_a_client_swallows_that(tmp_path, monkeypatch):
    monkeypatch.setattr(sharer_module, "_store", lambda *_: SwallowingStore())
    replica = SharingRouter(1)
    sharer = Sharer("pool", ShareTarget(hub=tmp_path / "hub"), replica.shared, replica.told)
    task = asyncio.create_task(sharer.run())
    await asyncio.sleep(0.02)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5.0)
    assert done
    assert task.cancelled()
