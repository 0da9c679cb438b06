"""KeptAnswers: which endpoint keeps which answer or conversation, and the prompt it stands for.

Engines keep answers by ids of their own (the Responses API): what goes on from one, fetches or
cancels it is for the engine that has it, and no other. Ids are known by keys, prompts by hashes.
An answer that is computed in the background is load after its request has ended.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from lodestar_extproc.completion import AnswerForm, KeptAnswer, KeptState
from lodestar_extproc.decision import Decision
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.request import InferenceRequest, Keeping, RequestKind, name_key
from lodestar_extproc.routing.continuation import continued
from lodestar_extproc.routing.ended_request import EndedRequest
from lodestar_extproc.routing.ending import Ending
from lodestar_extproc.routing.open_decisions import OpenDecision

MAX_KEPT = 50_000
"""Ids that are remembered: about 20 MB. A judgement."""
MAX_BLOCKS = 2**20
"""Of all their prompts: 16 million tokens, about 40 MB. More than the caches of a large fleet."""
MIN_COUNTED_TOKENS, COUNT_TOLERANCE_RATIO = 256.0, 0.2
"""A count tells whether a head is in it where the rest is no trifle, and it is near. Judgements."""
KEPT_FOR_S = 24 * 3600.0
"""After their last use. Engines keep them until they restart, or they run out of memory."""
_LOOKUP = re.compile(r".*\.kept-([0-9a-f]{16})", re.DOTALL)
"""Behind the name of a pool; decisions have other ids."""


class Lookup(NamedTuple):
    """A request that is for what is kept, and no inference.

    Attributes:
        addresses: of the endpoint that keeps it; none where nobody knows.
        lookup_id: by which its answer is told.
        is_owed: an answer that is on its way may tell in a moment who keeps it.
    """

    addresses: tuple[str, ...]
    lookup_id: str
    is_owed: bool = False


@dataclass(slots=True)
class _Kept:
    """One answer or conversation.

    Attributes:
        prompt: the request that was answered; None where it was none.
        n_blocks: of the hashes of `prompt`, which may be those of a prompt that goes on from it.
        n_own_blocks: of them, those that count as memory of this one.
        decision_id: of the request, while it is load in the background; else empty.
    """

    address: str
    used_at_s: float
    state: KeptState = KeptState.ENDED
    prompt: InferenceRequest | None = None
    n_blocks: int = 0
    n_own_blocks: int = 0
    reply_tokens: float = 0.0
    decision_id: str = ""


class KeptAnswers:
    """Remembers them, the least recently used first.

    Args:
        fleet: counts those that are computed in the background until they end.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._n_blocks = 0
        self._key_of_open: dict[str, int] = {}
        self._in_background: dict[str, _Kept] = {}
        # Older engines do. OpenAI's API says that instructions are each turn's own, and newer
        # engines follow it; what the engine counts tells.
        self._keeps_head = True

    # -- requests ---------------------------------------------------------------------------------

    def look_up(self, pool: str, name: str, at_s: float, unended: Iterable[OpenDecision]) -> Lookup:
        """Where *name* is kept, and what its answer is to be known by."""
        key = name_key(name) if name else 0
        kept, lookup_id = self._recall(key, at_s), f"{pool}.kept-{key:016x}"
        if kept is not None:
            return Lookup((kept.address,), lookup_id)
        is_owed = key != 0 and any(self._owes(each.decision) for each in unended)
        return Lookup((), lookup_id, is_owed)

    def _owes(self, decision: Decision) -> bool:
        """Whether the answer to *decision* will tell what is kept, and has not yet."""
        keeping = decision.candidates.request.keeping or Keeping()
        return keeping.keeps_answer and decision.decision_id not in self._key_of_open

    @staticmethod
    def is_lookup(decision_id: str) -> bool:
        """Whether it is a `lookup_id`."""
        return _LOOKUP.fullmatch(decision_id) is not None

    def recalled(
        self, request: InferenceRequest, at_s: float
    ) -> tuple[InferenceRequest, str | None]:
        """*request* with all of its prompt, and who keeps what it goes on from; None for nobody."""
        own = request.keeping
        if own is None or own.continues is None:
            return request, None
        kept = self._recall(own.continues, at_s)
        if kept is None:
            return request, None
        if kept.prompt is not None:
            request = continued(
                request,
                own,
                kept.prompt,
                kept.n_blocks,
                kept.reply_tokens,
                own.continues,
                keeps_head=self._keeps_head,
            )
        return request, kept.address

    def _recall(self, key: int, at_s: float) -> _Kept | None:
        """What is kept under *key*, used now; forgotten where its endpoint has lost it."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if not self._fleet.keeps(kept.address, at_s):
            self._forget(key, at_s)
            return None
        kept.used_at_s = at_s
        self._kept.move_to_end(key)
        return kept

    # -- answers ----------------------------------------------------------------------------------

    def heard(self, event: KeptAnswer, decision: Decision | None) -> None:
        """An answer told what is kept: that to *decision*, which is open, or to a look-up."""
        if event.state is KeptState.GONE:
            self._lost(event, decision)
            return
        key, prompt = name_key(event.name), None
        if decision is not None:
            prompt = decision.candidates.request
            if prompt.kind is RequestKind.UNKNOWN:
                prompt = None  # something was made, such as a conversation
            elif prompt.keeping is None or not prompt.keeping.keeps_answer:
                return
            else:
                self._key_of_open[decision.decision_id] = key
        elif not self.is_lookup(event.decision_id):
            return
        kept = self._kept.get(key)
        if kept is None:
            address = event.served or (None if decision is None else decision.address)
            if address is None:
                return
            kept = self._keep(key, _Kept(address, event.at_s), prompt)
        self._kept.move_to_end(key)
        self._note(kept, event)

    def _note(self, kept: _Kept, event: KeptAnswer) -> None:
        kept.used_at_s, kept.state = event.at_s, event.state
        if event.output_tokens is not None:
            kept.reply_tokens = float(event.output_tokens)
        if event.state is KeptState.ENDED:
            self._let_go(kept, event.at_s)

    def _lost(self, event: KeptAnswer, decision: Decision | None) -> None:
        """Who should keep it does not."""
        if event.name:
            key = name_key(event.name)
        elif decision is None:
            found = _LOOKUP.fullmatch(event.decision_id)
            key = int(found[1], 16) if found else 0
        else:
            keeping = decision.candidates.request.keeping
            key = (keeping.continues if keeping else None) or 0
        kept = self._kept.get(key)
        if kept is not None and event.served in (None, kept.address):
            self._forget(key, event.at_s)

    def ended(self, request: EndedRequest) -> bool:
        """A request ended; whether its engine computes on, so that its load stays."""
        decision, completion = request.decision, request.completion
        key = self._key_of_open.pop(decision.decision_id, None)
        prompt = decision.candidates.request
        keeping = prompt.keeping
        if keeping is None or not request.used:
            return False
        address = request.served or decision.address
        self._look_for_head(request, keeping)
        if request.is_served and keeping.is_conversation and keeping.continues is not None:
            self._forget(keeping.continues, completion.at_s)
            said = self._keep(keeping.continues, _Kept(address, completion.at_s), prompt)
            said.reply_tokens = _reply_tokens(request)
        kept = None if key is None else self._kept.get(key)
        if kept is None:
            return False
        kept.address = address
        kept.reply_tokens = kept.reply_tokens or _reply_tokens(request)
        left_running = completion.form is AnswerForm.PROMISE or request.ending is Ending.CLIENT_GONE
        if not (keeping.in_background and kept.state is KeptState.RUNNING and left_running):
            return False
        kept.decision_id = decision.decision_id
        self._in_background[kept.decision_id] = kept
        expected_at_s = decision.at_s + decision.expected_ttft_s
        self._fleet.goes_on(kept.decision_id, completion.at_s, expected_at_s)
        return True

    def _look_for_head(self, request: EndedRequest, keeping: Keeping) -> None:
        """Whether the engine's count has the head of an earlier turn in it."""
        told, prompt = request.completion.prompt_tokens, request.decision.candidates.request
        if told is None or keeping.borrowed_head_bytes == 0 or not prompt.prompt_bytes:
            return
        head_tokens = keeping.borrowed_head_bytes * prompt.prompt_tokens / prompt.prompt_bytes
        without = prompt.prompt_tokens - (head_tokens if keeping.head_key else 0.0)
        if without < MIN_COUNTED_TOKENS:
            return
        for keeps, expected in ((False, without), (True, without + head_tokens)):
            if abs(told / expected - 1.0) < COUNT_TOLERANCE_RATIO:
                self._keeps_head = keeps

    # -- memory -----------------------------------------------------------------------------------

    def expire(self, at_s: float, background_for_s: float) -> None:
        """Forget what was not used for long, and the load of which was not heard for so long."""
        for kept in list(self._in_background.values()):
            if kept.used_at_s <= at_s - background_for_s:
                self._let_go(kept, at_s)
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if kept.used_at_s > at_s - KEPT_FOR_S:
                return
            self._forget(key, at_s)

    @property
    def n_in_background(self) -> int:
        """Answers that are computed, and for which no request waits."""
        return len(self._in_background)

    def _keep(self, key: int, kept: _Kept, prompt: InferenceRequest | None) -> _Kept:
        if prompt is not None:
            kept.prompt = prompt
            kept.n_blocks = kept.n_own_blocks = len(prompt.block_hashes)
            self._share(prompt)
        self._kept[key] = kept
        self._n_blocks += kept.n_own_blocks
        while len(self._kept) > MAX_KEPT or self._n_blocks > MAX_BLOCKS:
            oldest = next(iter(self._kept))
            if oldest == key:
                break
            self._forget(oldest, kept.used_at_s)
        return kept

    def _share(self, prompt: InferenceRequest) -> None:
        """What *prompt* goes on from needs no hashes of its own: they are its first ones."""
        own = prompt.keeping
        before = self._kept.get(own.continues or 0) if own is not None else None
        if before is None or before.prompt is None:
            return
        theirs = before.prompt.block_hashes[: before.n_blocks]
        if prompt.block_hashes[: before.n_blocks] == theirs:
            before.prompt = before.prompt._replace(block_hashes=prompt.block_hashes)
            self._n_blocks -= before.n_own_blocks
            before.n_own_blocks = 0

    def _forget(self, key: int, at_s: float) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._n_blocks -= kept.n_own_blocks
            self._let_go(kept, at_s)

    def _let_go(self, kept: _Kept, at_s: float) -> None:
        """It is no load any more."""
        if self._in_background.pop(kept.decision_id, None) is not None:
            self._fleet.release(kept.decision_id, at_s)
            kept.decision_id = ""


def _reply_tokens(request: EndedRequest) -> float:
    """Of its answer: as the engine said, else by how long it took where it came from."""
    if request.completion.output_tokens is not None:
        return float(request.completion.output_tokens)
    index = request.decision.index_of(request.served or request.decision.address)
    if request.generation_s is None or index is None:
        return 0.0
    candidates = request.decision.candidates
    tokens = request.generation_s * float(candidates.snapshot.decode_tokens_per_s[index])
    limit = candidates.request.max_output_tokens
    return max(0.0, tokens if limit is None else min(tokens, float(limit)))
