"""GrpcioCall: one call that grpcio carries."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import closing, suppress
from types import MappingProxyType
from typing import Any

import grpc

from lodestar_extproc.transport.calls import CallHandler, OpenCall, Status

_CODES: Mapping[Status, grpc.StatusCode] = MappingProxyType(
    {Status(code.value[0]): code for code in grpc.StatusCode if code.value[0] in tuple(Status)}
)


class GrpcioCall:
    """Hands messages to a handler one by one, in the task that grpcio made for the call."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._unsent: deque[bytes] = deque()
        self._n_sent = 0
        self._status: Status | None = None
        self._text = ""
        self._task = asyncio.current_task()
        # Who does what `send` and `end` ask for: the task itself, as long as it waits for nothing.
        self._is_reading = self._is_working = self._is_cut_short = False
        self._changed = asyncio.Event()
        self._late: asyncio.Task[None] | None = None

    @property
    def metadata(self) -> Mapping[str, str]:
        return dict(self._context.invocation_metadata())

    def send(self, message: bytes) -> None:
        if self._status is None:
            self._unsent.append(message)
            self._wake()

    def end(self, status: Status = Status.OK, text: str = "") -> None:
        if self._status is None:
            self._status, self._text = status, text
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        if self._is_reading and self._status is not None and self._task is not None:
            self._is_cut_short = self._task.cancel()
        elif (self._is_reading or self._is_working) and self._unsent and self._late is None:
            self._late = asyncio.get_running_loop().create_task(self._send_late())

    async def _send_late(self) -> None:
        with suppress(grpc.aio.BaseError, asyncio.InvalidStateError):  # the call is over
            await self._write()
        self._late = None

    async def serve(self, opened: OpenCall) -> None:
        """From its first message to its end."""
        handler = opened(self)
        try:
            try:
                await self._receive(handler)
            except asyncio.CancelledError:
                if not self._is_cut_short:
                    raise  # the client's doing
            await self._flush()
        finally:
            handler.closed(self._n_sent)
        if self._status not in (None, Status.OK):
            await self._context.abort(_CODES[self._status], self._text)

    async def _receive(self, handler: CallHandler) -> None:
        """Until the call is to end."""
        await self._flush()
        self._is_reading = True
        # Its iterator of messages would keep the last one, a body, until garbage is collected.
        while (message := await self._context.read()) is not grpc.aio.EOF:
            self._is_reading = False
            later = handler.received(message)
            del message
            if later is not None:
                await self._work(later)
            await self._flush()
            if self._status is not None:
                return
            self._is_reading = True
        self._is_reading = False
        handler.half_closed()
        while self._status is None:
            await self._flush()
            await self._changed.wait()
            self._changed.clear()

    async def _work(self, later: Coroutine[Any, Any, None]) -> None:
        # Closed also where the client leaves before it has begun.
        with closing(later):
            await self._flush()
            self._is_working = True
            await later
            self._is_working = False

    async def _flush(self) -> None:
        if self._late is not None:  # grpcio writes one message at a time
            await asyncio.wait([self._late])
        if self._unsent:
            await self._write()

    async def _write(self) -> None:
        while self._unsent:
            await self._context.write(self._unsent.popleft())
            self._n_sent += 1


def serving(opened: OpenCall) -> Callable[[AsyncIterator[bytes], Any], Awaitable[None]]:
    """What serves calls of a method, for grpcio."""

    async def serve(_messages: AsyncIterator[bytes], context: Any) -> None:
        await GrpcioCall(context).serve(opened)

    return serve
