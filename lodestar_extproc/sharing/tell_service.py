"""TellService: where other replicas tell what they heard of our requests, on Envoy's own port."""

from __future__ import annotations

import time
from collections.abc import Callable

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Handed, Hello
from lodestar_extproc.sharing.handed import HandedEvent, decode
from lodestar_extproc.transport.calls import Call, Services

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
        self._open: set[TellCall] = set()

    @property
    def services(self) -> Services:
        """To be served beside ext_proc."""
        return {f"/{SERVICE}/{METHOD}": self._opened}

    def _opened(self, call: Call) -> TellCall:
        opened = TellCall(call, self.read, self._open.discard)
        self._open.add(opened)
        call.send(self._hello)
        return opened

    def end(self) -> None:
        """End all streams: a server that stops would wait for them."""
        for call in tuple(self._open):
            call.half_closed()

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


class TellCall:
    """One stream of another replica's. It takes bytes: one bad message costs itself alone."""

    def __init__(
        self, call: Call, read: Callable[[bytes], None], closed: Callable[[TellCall], None]
    ) -> None:
        self._call = call
        self._closed = closed
        self.received = read

    def half_closed(self) -> None:
        self._call.end()

    def closed(self, _n_sent: int) -> None:
        self._closed(self)
