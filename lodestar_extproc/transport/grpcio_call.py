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
    """Hands messages to a handler one by one.

    grpcio never frees what it reads into, or writes from, where whoever waits for that is cut off:
    96 bytes, and the message if one came (https://github.com/grpc/grpc/issues/43360). It cuts off
    the task that it made for the call when the client leaves, and we do where a call is to end.
    So a task of our own waits, and comes to its end as soon as the call is over.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._unsent: deque[bytes] = deque()
        self._n_sent = 0
        self._status: Status | None = None
        self._text = ""
        self._task = asyncio.current_task()
        # Who does what `send` and `end` ask for: whoever receives, as long as it waits for nothing.
        self._is_reading = self._is_working = self._is_cut_short = self._is_over = False
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
        receiving = asyncio.create_task(self._receive(handler))
        try:
            try:
                await asyncio.shield(receiving)
            except asyncio.CancelledError:
                await self._leave(receiving)
                if not self._is_cut_short:
                    raise  # the client's doing
            await self._flush()
        finally:
            handler.closed(self._n_sent)
        if self._status not in (None, Status.OK):
            await self._context.abort(_CODES[self._status], self._text)

    async def _leave(self, receiving: asyncio.Task[None]) -> None:
        """Nothing more is received; who waits for grpcio is left to it."""
        self._is_over = True
        self._changed.set()
        if self._is_working:
            receiving.cancel()
        if not self._is_cut_short:  # else what it waits for comes with the status we send
            await asyncio.wait([receiving])

    async def _receive(self, handler: CallHandler) -> None:
        try:
            await self._hand_over(handler)
        except grpc.aio.BaseError:
            if not self._is_over:
                raise

    async def _hand_over(self, handler: CallHandler) -> None:
        """Every message, until the call is to end."""
        await self._flush()
        while not self._ends():
            self._is_reading = True
            # Its iterator of messages would keep the last one, a body, until garbage is collected.
            message = await self._context.read()
            if self._ends():
                return
            self._is_reading = False
            if message is grpc.aio.EOF:
                break
            later = handler.received(message)
            del message
            if later is not None:
                await self._work(later)
            await self._flush()
        else:
            return
        handler.half_closed()
        while not self._ends():
            await self._flush()
            await self._changed.wait()
            self._changed.clear()

    def _ends(self) -> bool:
        """Whether nothing more is to be received."""
        return self._is_over or self._status is not None

    async def _work(self, later: Coroutine[Any, Any, None]) -> None:
        # Closed also where the client leaves before it has begun.
        with closing(later):
            await self._flush()
            if self._is_over:
                return
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
