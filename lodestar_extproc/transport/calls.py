"""Calls: the seam between services and what carries them.

A service knows a `Call`, on which it answers, and is told what comes by its `CallHandler`. A
`Transport` knows paths and bytes. Everything is on the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import IntEnum
from typing import Any, Protocol

from lodestar_extproc.server_tls import ServerTls

MAX_MESSAGE_BYTES = 64 * 2**20
"""gRPC's own 4 MiB turn a larger body into a 500; this holds a million tokens, and images."""
MAX_CONCURRENT_STREAMS = 100_000
"""Far above any number of requests in flight: a stream that waits is a request that waits."""
SHARED_AGE_S = 5.0
"""Of a connection to a shared port. What share of them a process gets is as random as it is
lasting, and one that was begun anew has none: connections are let go so often, each once its
streams have ended, and those that follow are dealt anew. A judgement."""


class Status(IntEnum):
    """How a call ended, by the numbers of gRPC.

    https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
    """

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class ListenError(OSError):
    """An address could not be bound."""


class Call(Protocol):
    """One call, as its service sees it."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the client sent beside the messages, by names in lower case."""

    def send(self, message: bytes) -> None:
        """Send *message* as soon as may be; it is dropped where the call is over."""

    def end(self, status: Status = Status.OK, text: str = "") -> None:
        """End the call once all that was sent has left. Nothing more is received. Idempotent."""


class CallHandler(Protocol):
    """A service's side of one call."""

    def received(self, message: bytes) -> Coroutine[Any, Any, None] | None:
        """Take *message*; where that needs time, what is to be awaited before the next comes."""

    def half_closed(self) -> None:
        """The client sends no more; it still waits for the end."""

    def closed(self, n_sent: int) -> None:
        """The call is over, however that came; *n_sent* messages of ours have left. Told once."""


OpenCall = Callable[[Call], CallHandler]
"""Begins to serve a call."""
Services = Mapping[str, OpenCall]
"""What is served, by path: `/service/method`."""


class CallRefused(Exception):  # noqa: N818  (named for the condition)
    """A request that is answered by a status alone."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


class UnaryHandler:
    """Serves a call of one message each way.

    Args:
        answer: the reply to a message; it may raise `CallRefused`.
    """

    def __init__(self, call: Call, answer: Callable[[bytes], bytes]) -> None:
        self._call = call
        self._answer = answer

    def received(self, message: bytes) -> None:
        try:
            self._call.send(self._answer(message))
        except CallRefused as refused:
            self._call.end(refused.status, str(refused))
        else:
            self._call.end()

    def half_closed(self) -> None:
        self._call.end(Status.INTERNAL, "the call ended without a message")

    def closed(self, n_sent: int) -> None:
        """Nothing is kept of it."""


class CallTransport(Protocol):
    """Listens, and carries calls to services."""

    async def listen(
        self,
        addresses: Sequence[str],
        services: Services,
        tls: ServerTls | None = None,
        *,
        shared: bool = False,
    ) -> tuple[int, ...]:
        """Serve *services* on each `host:port` or `unix:/path`; the ports bound, 0 for a socket.

        Args:
            tls: how to encrypt; None for plain text.
            shared: other processes of ours listen there, too; each gets a share of the connections.

        Raises:
            ListenError: an address cannot be bound.
            CertificateError: there is no certificate to serve with.
        """

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let open ones end for *grace_s*, then cut what is left."""
