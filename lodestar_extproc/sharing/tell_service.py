"""TellService: where other replicas tell what they heard of our requests, on Envoy's own port."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Handed, Hello
from lodestar_extproc.sharing.handed import HandedEvent, decode

SERVICE, METHOD = "lodestar.v1.Replicas", "Tell"
VERSION, SEVERAL = 2, 2
"""Of what is handed over; fields may be added without raising it. From 2 on a message may bring
several events, and `observed` is read."""


class TellService:
    """Takes what other replicas hand over.

    Args:
        receive: is told each event; None for one that cannot be read.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        origin: str,
        receive: Callable[[HandedEvent | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hello = Hello(version=VERSION, origin=origin).SerializeToString()
        self._receive = receive
        self._clock = clock
        self._streams: set[asyncio.Task[Any] | None] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """To be served beside ext_proc. It takes bytes: one bad message costs itself alone."""
        tell = grpc.stream_stream_rpc_method_handler(self._tell)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: tell})

    def end(self) -> None:
        """End all streams: a server that stops would wait for them."""
        for stream in filter(None, self._streams):
            stream.cancel()

    async def _tell(self, messages: AsyncIterator[bytes], context: Any) -> None:
        stream = asyncio.current_task()
        self._streams.add(stream)
        try:
            await context.write(self._hello)
            async for message in messages:
                self.read(message)
        except asyncio.CancelledError:
            pass  # `end` cancelled it
        finally:
            self._streams.discard(stream)

    def read(self, data: bytes) -> None:
        """Take up what a message says; what is no event costs itself alone."""
        told = Handed()
        try:
            told.ParseFromString(data)
        except DecodeError:
            told.Clear()
        at_s = self._clock()
        for each in (told, *told.more):
            self._receive(decode(each, at_s))
