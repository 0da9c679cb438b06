"""Inbox: what other replicas' frames say, taken up into one pool's fleet, demand and learner.

A frame's times are ages, counted from when it came here: no clock is compared with another. What
comes from a replica is given back when it falls silent; what it placed in caches, and what it
learned, stays.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from lodestar_extproc.features import N_ENGINE, N_FEATURES
from lodestar_extproc.fleet.peer_requests import PeerRequest
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import (
    Frame,
    Handed,
    LearnedSums,
    SentRequest,
)
from lodestar_extproc.learning.merging import merge
from lodestar_extproc.learning.sample_sums import EndpointSums
from lodestar_extproc.request import HASH_TYPE, MAX_ANSWERS, InferenceRequest, RequestKind
from lodestar_extproc.routing.router import Router
from lodestar_extproc.sharing.outbox import MAX_BLOCKS, MAX_EVENTS, VERSION
from lodestar_extproc.sharing.told_sums import HeardSums, told_before

SILENT_FRAMES = 3
"""So many frames in a row that do not come: their replica is gone, or cut off."""
LEAST_SILENCE_S = 0.06
"""However short its frames: an event loop may be late by as much."""
MOST_SILENCE_S = 3.0
"""However long it says that its frames are."""
MAX_PEERS = 256
"""Beyond any that share a pool; who comes later is passed over."""
MOST_AGE_S = 3600.0  # of an event: what claims to be older is taken to be so old
LARGEST = 1e15  # of a number in a frame: what is larger is no measurement
EVERYBODY = "*"
NOTHING_MISSED: Mapping[str, float] = MappingProxyType({})


@dataclass(slots=True)
class _Peer:
    """One replica that is heard of.

    Attributes:
        number: of its last frame.
        heard_at_s: when that came.
        silence_s: after how long it counts as gone.
        incomplete: a frame of it was missed, and it has not told everything since.
    """

    number: int
    heard_at_s: float
    silence_s: float
    incomplete: bool = True


class Inbox:
    """Takes frames.

    Args:
        kept: takes up what others heard of answers that engines keep.
        handed: is told what others heard of our requests.
        failing: is told which endpoints others found to fail.
        asked: is told the numbers of our sums that others missed.
    """

    def __init__(
        self,
        origin: str,
        router: Router,
        kept: Callable[[Frame, float], None],
        handed: Callable[[Handed, float], None],
        failing: Callable[[str, float], None],
        asked: Callable[[Sequence[int]], None],
    ) -> None:
        self.n_lost = 0
        self.is_asked = False
        self._origin = origin
        self._router = router
        self._kept = kept
        self._handed = handed
        self._failing = failing
        self._asked = asked
        # Of those who fell silent too: what they learned stays, and is not to be added twice.
        self._sums: dict[str, HeardSums] = {}
        self._peers: dict[str, _Peer] = {}

    @property
    def peers(self) -> frozenset[str]:
        """Those who are heard of."""
        return frozenset(self._peers)

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Those of whom something was missed."""
        return tuple(name for name, peer in self._peers.items() if peer.incomplete)

    @property
    def missed_sums(self) -> dict[str, list[int]]:
        """Numbers of sums that did not come, by replica that is heard of."""
        missing = {name: heard.missing for name, heard in self._sums.items() if name in self._peers}
        return {name: numbers for name, numbers in missing.items() if numbers}

    def receive(self, frame: Frame, at_s: float, *, anew: bool = False) -> bool:
        """Take up *frame*, which came at *at_s*; False where it is none that is read here.

        Args:
            anew: we have just begun: what others learned before comes by itself (`knowledge.py`).
        """
        if not 0 < frame.version <= VERSION or not frame.origin:
            return False
        if frame.origin == self._origin:
            return True
        if not self._is_new(frame, at_s):
            return True
        self._heed_wishes(frame, at_s)
        self._take_requests(frame, at_s)
        for address in frame.failing[:MAX_EVENTS]:
            self._failing(address, at_s)
        self._take_sums(frame, anew=anew)
        return True

    def age(self, at_s: float) -> None:
        """Give back what silent replicas had in flight; to be called once a frame."""
        for name, peer in list(self._peers.items()):
            if at_s - peer.heard_at_s > peer.silence_s:
                del self._peers[name]
                self._router.fleet.peers.drop(name)

    def _is_new(self, frame: Frame, at_s: float) -> bool:
        """Note that *frame* came; False for one that came before, or of one replica too many."""
        silence_s = SILENT_FRAMES * frame.interval_ms / 1000.0
        silence_s = min(max(silence_s, LEAST_SILENCE_S), MOST_SILENCE_S)
        peer = self._peers.get(frame.origin)
        if peer is None:
            if len(self._peers) >= MAX_PEERS:
                return False
            complete = frame.whole or frame.number == 1
            peer = _Peer(frame.number, at_s, silence_s, incomplete=not complete)
            self._peers[frame.origin] = peer
            return True
        peer.heard_at_s, peer.silence_s = at_s, silence_s
        if frame.number <= peer.number:
            return False
        missed = frame.number - peer.number - 1
        self.n_lost += missed
        peer.number = frame.number
        peer.incomplete = not frame.whole and (peer.incomplete or missed > 0)
        return True

    def _take_sums(self, frame: Frame, *, anew: bool) -> None:
        heard = self._sums.pop(frame.origin, None) or HeardSums(told_before(frame) if anew else 0)
        self._sums[frame.origin] = heard  # the last one heard is the last one forgotten
        if len(self._sums) > MAX_PEERS:
            del self._sums[next(iter(self._sums))]
        for learned in frame.learned[:MAX_EVENTS]:
            if learned.number and not heard.take(learned.number):
                continue
            sums = _read_sums(learned)
            if sums is not None:
                merge(self._router.learner, sums)
        heard.told(frame.learned_number, frame.learned_kept_from)

    def _heed_wishes(self, frame: Frame, at_s: float) -> None:
        self.is_asked = self.is_asked or self._origin in frame.wanted or EVERYBODY in frame.wanted
        for missed in frame.missed_sums[:MAX_PEERS]:
            if missed.origin == self._origin:
                self._asked(missed.numbers)
        for handed in frame.handed[:MAX_EVENTS]:
            self._handed(handed, at_s)

    def _take_requests(self, frame: Frame, at_s: float) -> None:
        peers, demand, origin = self._router.fleet.peers, self._router.demand, frame.origin
        if frame.whole:
            peers.keep(origin, {told.key for told in frame.sent})
        for told in frame.sent:
            request = _read_request(told, at_s)
            if request is not None and peers.sent(origin, request):
                demand.heard(
                    request.request,
                    request.address,
                    uncached_tokens=request.uncached_tokens,
                    missed_tokens=_missed(told) if told.missed else NOTHING_MISSED,
                    service_s=told.service_s,
                    at_s=request.at_s,
                )
        self._kept(frame, at_s)
        for token in frame.first_tokens:
            seen_at_s = at_s - _age_s(token.age_s)
            peers.first_token(origin, token.key, seen_at_s, token.served or None)
        for ended in frame.ended:
            peers.ended(
                origin,
                ended.key,
                at_s - _age_s(ended.age_s),
                served=ended.served or None,
                prompt_computed=ended.prompt_computed,
            )


def _missed(told: SentRequest) -> dict[str, float]:
    return {each.address: each.tokens for each in told.missed}


def _age_s(told_s: float) -> float:
    """What a frame says, made sensible: NaN and what lies ahead are now."""
    return min(told_s, MOST_AGE_S) if told_s > 0 else 0.0


def _read_request(told: SentRequest, at_s: float) -> PeerRequest | None:
    """None where a number in it is none that a replica of ours can have sent."""
    if not (0 <= told.prompt_tokens < LARGEST and 0 <= told.uncached_tokens < LARGEST and told.key):
        return None
    if told.missed and not all(0 <= each.tokens < LARGEST for each in told.missed):
        return None
    first_token_at_s = None
    if told.HasField("first_token_age_s"):
        first_token_at_s = at_s - _age_s(told.first_token_age_s)
    request = InferenceRequest(
        model="",
        kind=RequestKind.UNKNOWN,
        block_hashes=array(HASH_TYPE, told.block_hashes[:MAX_BLOCKS]),
        prompt_bytes=told.prompt_bytes,
        prompt_tokens=told.prompt_tokens,
        streaming=True,
        n_answers=min(max(1, told.n_answers), MAX_ANSWERS),
    )
    return PeerRequest(
        told.key,
        request,
        told.address,
        told.uncached_tokens,
        at_s - _age_s(told.age_s),
        first_token_at_s,
    )


def _read_sums(learned: LearnedSums) -> EndpointSums | None:
    """None where they are sums of nothing that our predictor learns from."""
    sizes = [len(x) for x in (learned.gram, learned.moment, learned.lowest, learned.highest)]
    if sizes != [N_ENGINE * N_ENGINE, N_ENGINE, N_FEATURES, N_FEATURES] or not learned.n_samples:
        return None
    arrays = [np.array(x) for x in (learned.gram, learned.moment, learned.lowest, learned.highest)]
    if not all(math.isfinite(x) and abs(x) < LARGEST for a in arrays for x in a.tolist()):
        return None
    gram, moment, lowest, highest = arrays
    square = gram.reshape(N_ENGINE, N_ENGINE)
    # What no samples can add up to would spoil the equations for good.
    if (square.diagonal() < 0).any() or (moment < 0).any() or (lowest > highest).any():
        return None
    return EndpointSums(
        learned.address, learned.accelerator, square, moment, lowest, highest, learned.n_samples
    )
