"""Answers in the making: kept until whole, or streamed token by token.

They know one request's connection and what is to go wrong with it, not the engine that produces
the tokens.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from aiohttp import HttpVersion11, web

from lodestar_extproc.simulator.answer_format import DONE, AnswerFormat
from lodestar_extproc.simulator.api import InvalidCallError
from lodestar_extproc.simulator.faults import FaultKind, InjectedFault

_ENGINE_DEAD = InvalidCallError(500, "InternalServerError", "EngineCore encountered an issue.")
_LINGER_0_S = struct.pack("ii", 1, 0)


class Answer:
    """A TokenSink that waits for the whole answer.

    Attributes:
        cached_tokens: known from the first token on.
        first_token_s: the loop's time; None before.
        complete: None while it grows, False if it broke off as its fault demands.
    """

    def __init__(
        self, words: list[str], shape: AnswerFormat, request: web.Request, fault: InjectedFault
    ) -> None:
        self.cached_tokens = 0
        self.first_token_s: float | None = None
        self.complete: bool | None = None
        self._words = words
        self._shape = shape
        self._request = request
        self._fault = fault
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()

    def admitted(self, cached_tokens: int) -> None:
        """The first token is there; so much of the prompt was cached."""
        self.first_token_s = self._loop.time()
        self.cached_tokens = cached_tokens

    def tokens(self, generated: int) -> None:
        """So many tokens exist now."""
        limit = self._fault.breaks_after
        if self._over.done():
            return
        if limit is not None and generated >= max(1, limit):
            self._send(limit)
            self._end(complete=False)
        else:
            self._send(generated)

    def completed(self) -> None:
        """All tokens exist."""
        self.tokens(len(self._words) - 1)
        if not self._over.done():
            self._send_last()
            self._end(complete=True)

    async def respond(self) -> web.StreamResponse:
        """The response, when there is one to send.

        Raises:
            InvalidCallError: the engine failed, as its fault demands.
        """
        await self._over
        if self.complete:
            body = self._shape.whole("".join(self._words), self.cached_tokens)
            return web.Response(body=body, content_type="application/json")
        if self._fault.kind is FaultKind.DROP_MID_STREAM:
            return hang_up(self._request)
        raise _ENGINE_DEAD

    def _end(self, *, complete: bool) -> None:
        self.complete = complete
        if not self._over.done():
            self._over.set_result(None)

    def _send(self, end: int) -> None:
        """Send the tokens before *end*."""

    def _send_last(self) -> None:
        """Send what is left, and the end."""


class StreamedAnswer(Answer):
    """An answer written as its tokens come, one event a step.

    Tokens go straight to the transport: a task switch and aiohttp's own `write` would cost more
    than all else that is done for a token. A client that does not read is not waited for; what it
    leaves unread is bounded by its answer.
    """

    def __init__(
        self, words: list[str], shape: AnswerFormat, request: web.Request, fault: InjectedFault
    ) -> None:
        super().__init__(words, shape, request, fault)
        self._chunked = request.version >= HttpVersion11
        self._open = False
        self._early = b""
        self._sent = 0

    async def respond(self) -> web.StreamResponse:
        """Send the headers at once, as vLLM does before it has computed anything; then tokens."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        if self._chunked:
            response.enable_chunked_encoding()
        await response.prepare(self._request)
        self._open = True
        self._write(self._early)
        await self._over
        if not self.complete and self._fault.kind is FaultKind.DROP_MID_STREAM:
            hang_up(self._request)
            return response
        if not self.complete:
            self._write(b"data: %b\n\n%b" % (_ENGINE_DEAD.body(), DONE))
        await response.write_eof()
        return response

    def _send(self, end: int) -> None:
        if end > self._sent:
            text = "".join(self._words[self._sent : end])
            self._write(self._opening() + self._shape.text(text))
            self._sent = end

    def _send_last(self) -> None:
        text = "".join(self._words[self._sent :])
        self._write(self._opening() + self._shape.last(text, self.cached_tokens))

    def _opening(self) -> bytes:
        return self._shape.role() if self._sent == 0 else b""

    def _write(self, data: bytes) -> None:
        """Send *data* as one chunk, if the client is still there."""
        if not self._open:
            self._early += data
            return
        transport = self._request.transport
        if transport is not None and data:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)


def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection after what was written; the response goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def reset(request: web.Request) -> web.StreamResponse:
    """Reset the connection; the response goes nowhere."""
    if request.transport is not None:
        # With no time to linger, closing sends RST instead of FIN.
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0_S)
        request.transport.abort()
    return web.Response()
