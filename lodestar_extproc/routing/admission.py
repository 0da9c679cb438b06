"""AdmissionQueue: requests that are better held here than sent to wait at an engine.

An engine computes prompts in the order in which they came, and a request that is sent stays there.
One that would wait there for others' prompts loses nothing by waiting here: shorter ones go first,
and each is sent where it is best served when its turn comes, not when it came.

The order is that of the shortest job first, which makes the mean wait least (W. E. Smith, 1956),
with waiting counted against length, so that long prompts are not put off for ever. A higher
priority goes before either; whoever has waited as long as may be goes, whatever its priority.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import NamedTuple, TypeAlias

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import HOLD_LIMIT_S
from lodestar_extproc.decision import Candidates, Ranking, Reason
from lodestar_extproc.features import queued_tokens
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.request import InferenceRequest, Subset

WORK_AHEAD_S = 0.4
"""Prefill that an engine has to have ahead of it: some steps, or one long prompt, and the time in
which a first token is told of and the next prompt comes. With 0.15 s fast engines ran dry under
prompts of many lengths (1.5 of the mean TTFT without holding); 0.6 did as 0.4."""
AGEING = 0.5
"""Seconds of service that a second of waiting makes up for; 0.2 and 1 gave the same mean TTFT
within 3 %, and 0.2 a higher P99."""
MAX_HELD = 1000
"""More go on at once: of a queue so long no order helps."""
MAX_LOOKS = 4
"""Requests whose outlook is taken anew for each turn; each costs as much as a decision."""
PREDICTED = (Reason.MODEL, Reason.EXPLORATION, Reason.UNTRUSTED)
"""Who decided where a queue is known: a predictor that errs by half knows enough of it, and if the
fallback's requests went first, those of the predictor would wait for them."""
OUTLOOK_S = 0.25
"""An outlook is believed for so long, as caches and loads change."""


class Outlook(NamedTuple):
    """How a request would fare if it were sent now.

    Attributes:
        address: where it would go.
        service_s: what it would add there.
        has_room: whether it would be begun at once, or nearly.
    """

    address: str
    service_s: float
    has_room: bool


class Ticket:
    """The place of one request in the queue.

    Attributes:
        came_at_s: when it was first asked for.
        limit_at_s: when it goes on, whatever its outlook.
    """

    __slots__ = ("came_at_s", "limit_at_s", "outlook", "policy", "request", "seen_at_s", "subset")

    def __init__(
        self,
        request: InferenceRequest,
        subset: Subset | None,
        policy: Policy,
        *,
        at_s: float,
        limit_s: float,
        outlook: Outlook,
    ) -> None:
        self.request, self.subset, self.policy = request, subset, policy
        self.came_at_s, self.limit_at_s = at_s, at_s + limit_s
        self.outlook, self.seen_at_s = outlook, at_s

    def rank(self, at_s: float) -> tuple[int, float]:
        """The least goes first: of the highest priority, the shortest less half of its wait."""
        rank_s = self.outlook.service_s - AGEING * (at_s - self.came_at_s)
        return -self.request.priority, rank_s


Look: TypeAlias = Callable[[Ticket, float], Outlook | None]
"""The outlook of a request at a time; None where nothing is predicted that decides."""


class AdmissionQueue:
    """Holds the requests of one pool. It knows no clock and no waiting: its owner asks for turns.

    Args:
        look: takes the outlook of a request anew.
    """

    def __init__(self, live: LiveSettings, look: Look) -> None:
        self._live = live
        self._look = look
        self._held: dict[Ticket, None] = {}
        self._look_again_at_s = -math.inf

    @property
    def held(self) -> Collection[Ticket]:
        """All that wait, in the order they came."""
        return self._held.keys()

    @property
    def takes_more(self) -> bool:
        """Whether any request would be held now, however it fares."""
        return self._limit_s > 0 and len(self._held) < MAX_HELD

    @property
    def _limit_s(self) -> float:
        limit_s = self._live.current.hold_limit_s
        return HOLD_LIMIT_S if limit_s is None else limit_s

    def offer(
        self,
        request: InferenceRequest,
        subset: Subset | None,
        policy: Policy,
        outlook: Outlook | None,
        at_s: float,
    ) -> Ticket | None:
        """Hold *request*; None where it may go at once."""
        if outlook is None or not self.takes_more:
            return None
        if outlook.has_room and not self._waited_for(outlook.address):
            return None
        ticket = Ticket(request, subset, policy, at_s=at_s, limit_s=self._limit_s, outlook=outlook)
        self._held[ticket] = None
        self.changed()
        return ticket

    def _waited_for(self, address: str) -> bool:
        return any(ticket.outlook.address == address for ticket in self._held)

    def changed(self) -> None:
        """Load, caches or members changed: somebody's turn may have come."""
        self._look_again_at_s = -math.inf

    def next_turn(self, at_s: float) -> Ticket | None:
        """Whose turn it is, and is no more in the queue; None where nobody's is.

        It is to be sent before the next is asked for, as it takes room.
        """
        if not self._held:
            return None
        turn = next((t for t in self._held if at_s >= t.limit_at_s), None)
        if turn is None and at_s >= self._look_again_at_s:
            turn = self._first_with_room(at_s)
            if turn is None:
                self._look_again_at_s = at_s + OUTLOOK_S
        if turn is not None:
            del self._held[turn]
        return turn

    def _first_with_room(self, at_s: float) -> Ticket | None:
        """Of the first in order, one for each endpoint; the rest would go behind these."""
        full: set[str] = set()
        n_looks = 0
        for ticket in sorted(self._held, key=lambda t: t.rank(at_s)):
            if at_s - ticket.seen_at_s < OUTLOOK_S and ticket.outlook.address in full:
                continue
            if n_looks >= MAX_LOOKS:
                break
            n_looks += 1
            outlook = self._look(ticket, at_s)
            if outlook is None:
                return ticket
            ticket.outlook, ticket.seen_at_s = outlook, at_s
            if outlook.has_room:
                return ticket
            full.add(outlook.address)
        return None

    def withdraw(self, ticket: Ticket) -> None:
        """Its client has left, or it goes on unasked. Idempotent."""
        self._held.pop(ticket, None)


def outlook(candidates: Candidates, ranking: Ranking) -> Outlook | None:
    """Of a ranked request; None where nothing was predicted of it."""
    if ranking.reason not in PREDICTED or ranking.service_s is None:
        return None
    best, snapshot = ranking.order[0], candidates.snapshot
    service_s = float(ranking.service_s[best])
    return Outlook(snapshot.endpoints[best].address, service_s, _has_room(candidates, best))


def _has_room(candidates: Candidates, best: int) -> bool:
    snapshot = candidates.snapshot
    if not snapshot.prefill_requests[best]:
        return True
    # Unknown memory (NaN) is enough.
    own_ratio = candidates.request.prompt_tokens / snapshot.kv_capacity_tokens[best]
    if snapshot.memory_used_ratio[best] + own_ratio > 1.0:
        return False
    s_per_ktoken = candidates.prefill_s_per_ktoken
    ahead_s = 1e-3 * queued_tokens(snapshot, s_per_ktoken)[best] * s_per_ktoken[best]
    return bool(ahead_s <= WORK_AHEAD_S)
