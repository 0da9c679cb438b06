"""KvPublisher: publishes KV events as vLLM does, on real sockets, with replay."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import msgpack
import zmq
import zmq.asyncio

END = (-1).to_bytes(8, "big", signed=True)


def stored(hashes: Sequence[Any], parent: Any = None, size: int = 16, **more: Any) -> dict:
    """As vLLM 0.32 writes it."""
    return {
        "type": "BlockStored",
        "block_hashes": list(hashes),
        "parent_block_hash": parent,
        "token_ids": list(range(size * len(hashes))),
        "block_size": size,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
    } | more


def removed(hashes: Sequence[Any]) -> dict:
    return {"type": "BlockRemoved", "block_hashes": list(hashes), "medium": "GPU"}


class KvPublisher:
    """One engine; numbers begin at 0. Made anew on the same ports it is one that restarted."""

    def __init__(self, port: int = 0, replay_port: int | None = 0, kept: int = 10_000) -> None:
        self._context = zmq.asyncio.Context()
        self._pub = self._context.socket(zmq.PUB)
        self.port = _bind(self._pub, port)
        self._router = None
        self.replay_port = None
        if replay_port is not None:
            self._router = self._context.socket(zmq.ROUTER)
            self.replay_port = _bind(self._router, replay_port)
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=kept)
        self.number = 0
        self._at_s = asyncio.get_running_loop().time()
        self._replaying: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._router is not None:
            self._replaying = asyncio.create_task(self._replay())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._replaying is not None:
            self._replaying.cancel()
            with suppress(asyncio.CancelledError):
                await self._replaying
        self._context.destroy(linger=0)

    async def publish(self, *events: Any, is_missed: bool = False) -> None:
        """One message of these events; one that is missed comes by replay alone."""
        self._at_s = max(self._at_s + 1e-3, asyncio.get_running_loop().time())
        await self.say(msgpack.packb([self._at_s, list(events), 0]), is_missed=is_missed)

    async def say(self, payload: bytes, *, is_missed: bool = False) -> None:
        """Any bytes, as a message."""
        number = self.number.to_bytes(8, "big")
        self._kept.append((self.number, payload))
        self.number += 1
        if not is_missed:
            await self._pub.send_multipart([b"kv", number, payload])

    async def frames(self, *frames: bytes) -> None:
        """Any frames."""
        await self._pub.send_multipart(list(frames))

    async def _replay(self) -> None:
        assert self._router is not None
        while True:
            client, _, first = await self._router.recv_multipart()
            for number, payload in self._kept:
                if number >= int.from_bytes(first, "big"):
                    said = [client, b"", b"kv", number.to_bytes(8, "big"), payload]
                    await self._router.send_multipart(said)
            await self._router.send_multipart([client, b"", b"", END, b""])


def _bind(socket: zmq.asyncio.Socket, port: int) -> int:
    if port:
        socket.bind(f"tcp://127.0.0.1:{port}")
        return port
    return socket.bind_to_random_port("tcp://127.0.0.1")
