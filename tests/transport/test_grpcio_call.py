"""What grpcio's transport does where a client leaves at the worst of moments."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from lodestar_extproc.transport.grpcio_call import GrpcioCall


class LeavingClient:
    """Sends one message, and is gone when the first reply is written."""

    async def read(self):
        return b"message"

    async def write(self, _message):
        raise asyncio.CancelledError


class LongWork:
    """Answers a message at once, and has more to do for it."""

    def __init__(self, call):
        self._call = call
        self.n_sent = None
        self.work = None

    def received(self, _message):
        self._call.send(b"wait")
        self.work = self._more()
        return self.work

    async def _more(self):
        await asyncio.sleep(60)

    def closed(self, n_sent):
        self.n_sent = n_sent


async def test_work_that_the_client_did_not_wait_for_is_closed_before_it_began():
    call = GrpcioCall(LeavingClient())
    handler = LongWork(call)
    with pytest.raises(asyncio.CancelledError):
        await call.serve(lambda _: handler)

    assert inspect.getcoroutinestate(handler.work) == inspect.CORO_CLOSED
    assert handler.n_sent == 0
