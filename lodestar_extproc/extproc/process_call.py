"""ProcessCall: one ext_proc stream, whatever carries it. `exchange.py` decides what to answer.

Nothing that goes wrong on a stream stops the request it belongs to.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.config.overrides import KEYS_BEFORE
from lodestar_extproc.extproc import wire
from lodestar_extproc.extproc.body_reader import BodyReader
from lodestar_extproc.extproc.error_boundary import ErrorBoundary
from lodestar_extproc.extproc.events import Event, Opening, RouteTo
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.extproc.heard_ends import HeardEnds
from lodestar_extproc.extproc.held_turn import HeldTurn
from lodestar_extproc.extproc.modes import Replies
from lodestar_extproc.extproc.pools import Overrides, PoolRouters
from lodestar_extproc.extproc.stream_listener import StreamListener
from lodestar_extproc.extproc.stream_outcome import StreamOutcome, summary
from lodestar_extproc.extproc.traced_stream import TracedStream, Traces
from lodestar_extproc.extproc.turns import Turns
from lodestar_extproc.extproc.usual_messages import UsualMessages
from lodestar_extproc.routing.ids import new_id
from lodestar_extproc.transport.calls import Call

REPLIES_A_TURN = 8
"""Parts of a long body that Envoy gets back before others have their turn: half a millisecond. A
judgement."""
TURN_S, TOLD_WITHIN_TURNS = 0.005, 20
"""A tenth of a second at most: the observer is late by some turns of a busy loop, and Envoy waits
for half a second. Judgements."""
Work = Coroutine[Any, Any, None]
"""What takes longer than a turn of the event loop."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessService:
    """What all ext_proc streams share.

    Attributes:
        access_log: Envoy is configured to send its access log here.
        origin: begins the ids of streams (`routing/ids.py`).
        traces: of requests; None for none.
        clock: monotonic seconds.
    """

    routers: PoolRouters
    listener: StreamListener
    boundary: ErrorBoundary
    heard: HeardEnds
    bodies: BodyReader
    turns: Turns
    access_log: bool
    origin: str
    traces: Traces | None
    clock: Callable[[], float]
    messages: UsualMessages = field(default_factory=UsualMessages)
    ids: random.Random = field(default_factory=random.Random)
    old_keys: set[str] = field(default_factory=set)

    @property
    def headers(self) -> frozenset[str]:
        """Names of request headers that somebody reads, beside our own."""
        wanted = self.routers.headers
        return wanted if self.traces is None else wanted | self.traces.headers

    def open(self, call: Call) -> ProcessCall:
        """Begin to serve a stream."""
        self.listener.stream_opened()
        return ProcessCall(self, call)

    def exchange(self, opening: Opening, sent: Mapping[str, str]) -> Exchange:
        """Of a stream that began so, whose route *sent* overrides."""
        self._warn_of_old_keys(sent)
        return Exchange(
            self.routers,
            opening,
            Overrides.of(sent),
            stream_id=new_id(self.origin, self.ids),
            access_log=self.access_log,
        )

    def _warn_of_old_keys(self, sent: Mapping[str, str]) -> None:
        """Once each, for a route sends it with every request."""
        if KEYS_BEFORE.keys().isdisjoint(sent):
            return
        for old in (KEYS_BEFORE.keys() & sent.keys()) - self.old_keys:
            self.old_keys.add(old)
            _log.warning("a route sends %s: it is now called %s", old, KEYS_BEFORE[old])


class ProcessCall:
    """Takes Envoy's messages, and answers them."""

    def __init__(self, service: ProcessService, call: Call) -> None:
        self._service = service
        self._call = call
        self._exchange: Exchange | None = None
        self._traced = TracedStream(service.traces, service.clock)
        self._n_replies = 0
        # Until what number of replies has left, Envoy does not know where the request goes.
        self._n_to_be_told = 0

    def received(self, message: bytes) -> Work | None:
        with self._service.boundary:
            return self._take(message)
        self._call.end()
        return None

    def half_closed(self) -> None:
        self._call.end()

    def closed(self, n_sent: int) -> None:
        with self._service.boundary:
            self._close(n_sent)

    def _take(self, data: bytes) -> Work | None:
        service = self._service
        event, opening = service.messages.read(data, service.clock(), service.headers)
        # Of a large body there is one copy from here on.
        del data
        exchange = self._exchange
        if exchange is None:
            exchange = self._exchange = service.exchange(opening, self._call.metadata)
        service.listener.message(event.phase)
        self._traced.came(event)
        with service.boundary:
            if exchange.request.is_owed(event):
                return self._answer_later(exchange, event, None)
            if (rest := service.bodies.begin(exchange.unread(event))) is not None:
                return self._answer_later(exchange, event, rest)
        return self._answer(exchange, event)

    async def _answer_later(self, exchange: Exchange, event: Event, rest: Work | None) -> None:
        with self._service.boundary:
            if rest is None:
                await _until_told(exchange, event)
                rest = self._service.bodies.read(exchange.unread(event))
            await rest
        with self._service.boundary:
            if (in_turn := self._answer(exchange, event)) is not None:
                await in_turn
            return
        self._call.end()

    async def _answer_in_turn(self, exchange: Exchange, event: Event, turn: HeldTurn) -> None:
        with self._service.boundary:
            await self._service.turns.wait(turn)
            self._traced.read()  # it is decided now, not when it came
            if rest := self._tell(exchange, event, self._replies_in_turn(exchange, event)):
                await rest
            return
        self._call.end()

    def _answer(self, exchange: Exchange, event: Event) -> Work | None:
        """Answer *event*; what does the rest, where that is long or its request is held."""
        self._traced.read()
        rest = self._tell(exchange, event, self._replies(exchange, event))
        turn = exchange.turn
        return rest if turn is None else self._answer_in_turn(exchange, event, turn)

    def _tell(self, exchange: Exchange, event: Event, replies: Replies) -> Work | None:
        told = self._traced.told(event, exchange.decision, replies)
        self._send(told[:REPLIES_A_TURN])
        if len(told) > REPLIES_A_TURN:
            return self._tell_rest(exchange, told)
        if exchange.done:
            self._call.end()
        return None

    async def _tell_rest(self, exchange: Exchange, told: Replies) -> None:
        with self._service.boundary:
            for start in range(REPLIES_A_TURN, len(told), REPLIES_A_TURN):
                await asyncio.sleep(0)
                self._send(told[start : start + REPLIES_A_TURN])
            if not exchange.done:
                return
        self._call.end()

    def _send(self, replies: Replies) -> None:
        for reply in replies:
            self._call.send(wire.encode(reply))
            self._n_replies += 1
            if isinstance(reply, RouteTo):
                self._n_to_be_told = self._n_replies

    def _replies_in_turn(self, exchange: Exchange, event: Event) -> Replies:
        with self._service.boundary:
            return exchange.turn_came(self._service.clock())
        return exchange.go_on_without_us(event)

    def _replies(self, exchange: Exchange, event: Event) -> Replies:
        with self._service.boundary:
            return exchange.receive(event)
        return exchange.go_on_without_us(event)

    def _close(self, n_sent: int) -> None:
        service, exchange = self._service, self._exchange
        outcome = StreamOutcome.CUT
        if exchange is not None:
            if n_sent < self._n_to_be_told:
                # Envoy went on before it could be told; where that was the first reply, its access
                # log has no word of ours to tell the end by.
                gone, at_s = Outcome.CLIENT_GONE, service.clock()
                service.routers.complete(Completion(at_s, gone, stream_id=exchange.stream_id))
            if (turn := exchange.turn) is not None:
                # What was to wait for it may have been cut off before it began.
                turn.queue.withdraw(turn.ticket)
            exchange.close(service.clock())
            if service.access_log and exchange.observed_id:
                service.heard.observed(exchange.observed_id)
            outcome = exchange.outcome
            if exchange.request.over_budget:
                service.listener.body_over_budget(exchange.request.over_budget)
            if exchange.n_repeats:
                service.listener.messages_repeated(exchange.n_repeats)
            if _log.isEnabledFor(logging.DEBUG):
                said = summary(outcome, exchange.decision, exchange.observed_id)
                _log.debug("exchange %s", said)
        service.listener.stream_closed(outcome)
        self._traced.close(outcome)


async def _until_told(exchange: Exchange, event: Event) -> None:
    """Let the observer come first: a client may ask for an answer as soon as it knows its id."""
    for _ in range(TOLD_WITHIN_TURNS):
        if not exchange.request.is_owed(event):
            return
        await asyncio.sleep(TURN_S)
