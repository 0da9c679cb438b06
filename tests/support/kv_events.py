"""CacheFollower: the exact contents of one vLLM server's prefix cache, from its KV events.

Frames as vLLM publishes them over ZMQ: topic, sequence number, msgpack of [time, events, rank].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import msgpack
import zmq


@dataclass
class CacheFollower:
    """Follows from an empty cache on; reads what has come when asked.

    Attributes:
        sequence: of the last message; gaps mean lost events.
    """

    socket: zmq.Socket
    sequence: int = -1
    gaps: int = 0
    stored: int = 0
    removed: int = 0
    # (parent's hash, the block's tokens) by hash, and the other way round.
    _blocks: dict[Any, tuple[Any, tuple[int, ...]]] = field(default_factory=dict)
    _hashes: dict[tuple[Any, tuple[int, ...]], Any] = field(default_factory=dict)

    @classmethod
    async def connect(cls, client: aiohttp.ClientSession, url: str) -> Self:
        """Subscribe to where the server says it publishes."""
        async with client.get(url + "/kv_event_sources") as response:
            sources = await response.json()
        source = next(iter(sources.values()))
        socket = zmq.Context.instance().socket(zmq.SUB)
        socket.connect(source["endpoint"])
        socket.setsockopt_string(zmq.SUBSCRIBE, source["topic"])
        return cls(socket)

    def close(self) -> None:
        self.socket.close(linger=0)

    def read(self) -> None:
        """Take in all that has come."""
        while self.socket.poll(50):
            _, sequence, payload = self.socket.recv_multipart()
            number = int.from_bytes(sequence, "big")
            self.gaps += self.sequence >= 0 and number != self.sequence + 1
            self.sequence = number
            for event in msgpack.unpackb(payload, strict_map_key=False)[1]:
                self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "BlockStored":
                self._store(event)
            case "BlockRemoved":
                for each in event["block_hashes"]:
                    self.removed += 1
                    block = self._blocks.pop(each, None)
                    if block is not None:
                        self._hashes.pop(block, None)
            case "AllBlocksCleared":
                self._blocks.clear()
                self._hashes.clear()

    def _store(self, event: dict[str, Any]) -> None:
        parent, size, tokens = (
            event["parent_block_hash"],
            event["block_size"],
            event["token_ids"],
        )
        for i, each in enumerate(event["block_hashes"]):
            self.stored += 1
            block = (parent, tuple(tokens[i * size : (i + 1) * size]))
            self._blocks[each], self._hashes[block] = block, each
            parent = each

    def __len__(self) -> int:
        return len(self._blocks)

    def match(self, tokens: Sequence[int], block_tokens: int) -> int:
        """Leading tokens of a prompt that the cache holds, in whole blocks."""
        parent, at = None, 0
        while at + block_tokens <= len(tokens):
            parent = self._hashes.get((parent, tuple(tokens[at : at + block_tokens])))
            if parent is None:
                break
            at += block_tokens
        return at
