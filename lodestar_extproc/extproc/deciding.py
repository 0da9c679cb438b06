"""Deciding: asks a pool's router where one request goes, and keeps it while it is held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from lodestar_extproc.decision import Decision
from lodestar_extproc.extproc.events import Content, RequestEvent, RouteTo, Wait
from lodestar_extproc.extproc.held_turn import HeldTurn, TurnQueue
from lodestar_extproc.extproc.incoming import IncomingRequest
from lodestar_extproc.extproc.modes import RequestStrategy
from lodestar_extproc.extproc.pools import PoolRouter
from lodestar_extproc.extproc.route_reply import route_to
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.request import InferenceRequest
from lodestar_extproc.routing.admission import Ticket


class Decided(NamedTuple):
    """What Envoy is told of a decision.

    Attributes:
        body: as the engine is to get it; None where it is not here.
    """

    reply: RouteTo
    body: Content | None


class Deciding:
    """Decides for one request.

    Args:
        stream_id: of its stream.

    Attributes:
        decision: None until it is made.
        turn: what is to be decided when its turn comes; None where nothing is held.
    """

    def __init__(self, request: IncomingRequest, requests: RequestStrategy, stream_id: str) -> None:
        self.decision: Decision | None = None
        self.turn: HeldTurn | None = None
        self._request, self._requests, self._stream_id = request, requests, stream_id

    def decide(
        self,
        router: PoolRouter,
        policy: Policy | None,
        event: RequestEvent,
        content: Content | None,
        n_bytes: int,
    ) -> Decided | Wait:
        """The decision, and the body with it; or how long it may be put off.

        Args:
            event: ended the request.
            content, n_bytes: its body, None where that is not sent here, and its length.
        """
        request, wanted = self._request.read(
            content, n_bytes, router, may_rename=self._requests.may_change_body
        )
        awaited = router.awaited.offer(request, event.at_s) if self.turn is None else None
        decision = awaited or self._ask(router, request, policy, event.at_s)
        if not isinstance(decision, Decision):
            queue: TurnQueue = router.admission if awaited is None else router.awaited
            self.turn = HeldTurn(decision, queue, event, content, n_bytes)
            return Wait(decision.limit_at_s - event.at_s)
        self.decision = decision
        new_body = self._requests.replaced_body(content, wanted)
        told = decision.decision_id, router.settings, new_body, decision.predicted_ttft_s
        phase = self._requests.reply_phase(event)
        return Decided(route_to(phase, decision.addresses, *told), wanted)

    def request_at(self, at_s: float) -> tuple[RequestEvent, Content | None, int]:
        """What is held, as if it came now: its last message, its body and the body's length."""
        assert self.turn is not None
        return replace(self.turn.event, at_s=at_s), self.turn.content, self.turn.n_bytes

    def _ask(
        self, router: PoolRouter, request: InferenceRequest, policy: Policy | None, at_s: float
    ) -> Decision | Ticket:
        route: Callable[..., Decision | Ticket] = router.route_or_hold
        if self.turn is not None:
            route = partial(router.route, held_s=at_s - self.turn.ticket.came_at_s)
        return route(
            request,
            request_id=self._request.request_id,
            stream_id=self._stream_id,
            at_s=at_s,
            subset=self._request.subset(router.settings),
            policy=policy,
        )
