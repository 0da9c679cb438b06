"""Outbox: what this replica has seen of one pool since its last frame, and all it has in flight.

It listens to the router as metrics do, and is emptied into frames; it sends nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from lodestar_extproc.decision import Decision
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame, SentRequest
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken
from lodestar_extproc.sharing.handed import HandedEvent, encode
from lodestar_extproc.sharing.told_sums import ToldSums

VERSION = 1
"""Of frames; a reader passes over those of a later one."""
MAX_EVENTS = 5_000
"""In one frame: 100 requests a millisecond at 30 ms. With more, all that is in flight is told
instead, so that a store that is away for an hour costs no memory."""
MAX_BLOCKS = 8_192
"""Of a prompt, those that are told: 130 thousand tokens, 64 KB. What is longer shares its beginning
or nothing."""
NOTHING_MISSED: Mapping[str, Iterable[int]] = MappingProxyType({})
LEARNED_EVERY_S = 1.0
"""What is learned changes over minutes; a sum costs as little of many samples as of one."""


@dataclass(slots=True)
class _InFlight:
    """What is told of a request again and again, while it is in flight."""

    told: SentRequest
    at_s: float
    first_token_at_s: float | None = None


class _Passed(NamedTuple):
    """A first token, or an end."""

    key: str
    at_s: float
    served: str
    prompt_computed: bool = False


class Outbox:
    """Gathers what the router says; `frame` empties it.

    Attributes:
        sums: of what was learned here.
        on_news: is called where a frame should leave before its time: a decision, of which others
            should know before they decide, or an id that a client may go on from. At most once a
            frame, so that there are never more than twice as many frames; under load decisions
            wait for each other.
    """

    def __init__(self, origin: str, interval_s: float) -> None:
        self.sums = ToldSums()
        self.on_news: Callable[[], None] = lambda: None
        self._origin = origin
        self._interval_s = interval_s
        self._early_at_s = -math.inf
        self._interval_ms = round(interval_s * 1000)
        self._number = 0
        self._in_flight: dict[str, _InFlight] = {}
        self._in_background: set[str] = set()
        self._sent: list[_InFlight] = []
        self._first_tokens: list[_Passed] = []
        self._ended: list[_Passed] = []
        self._handed: list[HandedEvent] = []
        self._whole = False
        self._learned_at_s = 0.0

    # -- what the router says (`RouterListener`) --------------------------------------------------

    def decided(self, decision: Decision) -> None:
        """A request left."""
        request, chosen = decision.candidates.request, decision.chosen
        key = key_of(decision.decision_id)
        service = decision.ranking.service_s
        told = SentRequest(
            key=key,
            address=decision.address,
            prompt_tokens=request.prompt_tokens,
            prompt_bytes=request.prompt_bytes,
            uncached_tokens=decision.candidates.uncached_on(chosen),
            service_s=0.0 if service is None else float(service[chosen]),
            block_hashes=request.block_hashes[:MAX_BLOCKS],
            n_answers=request.n_answers,
        )
        for address, tokens in _missed(decision):
            told.missed.add(address=address, tokens=tokens)
        own = self._in_flight[key] = _InFlight(told, decision.at_s)
        self._sent.append(own)
        self._bound()
        self.hurry(decision.at_s)

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """Its first token passed."""
        key = key_of(decision.decision_id)
        own = self._in_flight.get(key)
        if own is None:
            return
        own.first_token_at_s = first_token.at_s
        served = first_token.served or ""
        if served:
            own.told.address = served
        self._first_tokens.append(_Passed(key, first_token.at_s, served))

    def ended(self, request: EndedRequest) -> None:
        """It is over, but for what computes on in the background."""
        key = key_of(request.decision.decision_id)
        if key in self._in_background:
            return
        if self._in_flight.pop(key, None) is not None:
            at_s, served = request.completion.at_s, request.served or ""
            self._ended.append(_Passed(key, at_s, served, request.prompt_computed))
            self._bound()

    def goes_on(self, decision_id: str, at_s: float) -> None:
        """Its request is about to end, and it is load until `over`: others count it as decoding."""
        key = key_of(decision_id)
        own = self._in_flight.get(key)
        if own is None:
            return
        self._in_background.add(key)
        if own.first_token_at_s is None:
            own.first_token_at_s = at_s
            self._first_tokens.append(_Passed(key, at_s, ""))

    def over(self, decision_id: str, at_s: float) -> None:
        """What went on has ended."""
        key = key_of(decision_id)
        self._in_background.discard(key)
        if self._in_flight.pop(key, None) is not None:
            self._ended.append(_Passed(key, at_s, "", prompt_computed=True))
            self._bound()

    # -- what else is told ------------------------------------------------------------------------

    def hand(self, event: HandedEvent) -> bool:
        """Tell another replica what was heard of its request; False where too much waits."""
        if len(self._handed) >= MAX_EVENTS:
            return False
        self._handed.append(event)
        return True

    def hurry(self, at_s: float) -> None:
        """Let a frame leave before its time, once in the time of one."""
        if at_s - self._early_at_s >= self._interval_s:
            self._early_at_s = at_s
            self.on_news()

    def tell_all(self) -> None:
        """The next frame says everything that is in flight: somebody missed something."""
        self._whole = True

    def start_anew(self) -> None:
        """Nobody hears us: forget what there is to tell, and tell everything next."""
        self._whole = True
        self._forget_news()
        self._handed = []

    def _forget_news(self) -> None:
        self._sent, self._first_tokens, self._ended = [], [], []

    def frame(
        self,
        at_s: float,
        *,
        failing: Iterable[str] = (),
        wanted: Iterable[str] = (),
        missed: Mapping[str, Iterable[int]] = NOTHING_MISSED,
        all_learned: bool = False,
    ) -> Frame:
        """All there is to tell; what was told is forgotten.

        Args:
            failing: endpoints that were just found to fail.
            wanted: replicas that are asked to tell everything.
            missed: numbers of sums that are asked for, by replica.
            all_learned: tell what was learned even if little time went by.
        """
        self._number += 1
        frame = Frame(
            version=VERSION,
            origin=self._origin,
            number=self._number,
            interval_ms=self._interval_ms,
            whole=self._whole,
            failing=failing,
            wanted=wanted,
            handed=[encode(event, at_s) for event in self._handed],
        )
        self._write_requests(frame, at_s)
        for origin, numbers in missed.items():
            frame.missed_sums.add(origin=origin, numbers=numbers)
        new = all_learned or at_s - self._learned_at_s >= LEARNED_EVERY_S
        self._learned_at_s = at_s if new else self._learned_at_s
        self.sums.write(frame, new=new)
        self._handed, self._whole = [], False
        self._forget_news()
        return frame

    def _write_requests(self, frame: Frame, at_s: float) -> None:
        over = [own for own in self._sent if own.told.key not in self._in_flight]
        for own in (*self._in_flight.values(), *over) if self._whole else self._sent:
            told = frame.sent.add()
            told.CopyFrom(own.told)
            told.age_s = at_s - own.at_s
            if self._whole and own.first_token_at_s is not None:
                told.first_token_age_s = at_s - own.first_token_at_s
        for passed in self._first_tokens:
            frame.first_tokens.add(key=passed.key, age_s=at_s - passed.at_s, served=passed.served)
        for passed in self._ended:
            frame.ended.add(
                key=passed.key,
                age_s=at_s - passed.at_s,
                served=passed.served,
                prompt_computed=passed.prompt_computed,
            )

    def _bound(self) -> None:
        if len(self._sent) + len(self._ended) > MAX_EVENTS:
            self.start_anew()


def key_of(decision_id: str) -> str:
    """What stands for a request in frames, beside its origin: the end of its decision's id."""
    return decision_id[-16:]


def _missed(decision: Decision) -> Iterator[tuple[str, float]]:
    """Tokens that were lost and asked for again, by where."""
    demand, endpoints = decision.candidates.demand, decision.candidates.snapshot.endpoints
    if demand is not None:
        for index in demand.missed_tokens.nonzero()[0].tolist():  # of hundreds, mostly none
            yield endpoints[index].address, float(demand.missed_tokens[index])
