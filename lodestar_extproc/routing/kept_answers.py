"""KeptAnswers: which endpoint keeps which answer or conversation, and the prompt it stands for.

Engines keep answers by ids of their own (the Responses API): what goes on from one, fetches or
cancels it is for the engine that has it, and no other. Ids are known by keys, prompts by hashes.
An answer that is computed in the background is load after its request has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lodestar_extproc.completion import AnswerForm, KeptAnswer, KeptState
from lodestar_extproc.decision import Decision
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.request import InferenceRequest, Keeping, RequestKind, Subset, name_key
from lodestar_extproc.routing.continuation import continued, counts_head
from lodestar_extproc.routing.ended_request import EndedRequest
from lodestar_extproc.routing.ending import Ending
from lodestar_extproc.routing.kept import Kept, KeptListener, KeptMemory
from lodestar_extproc.routing.look_ups import Lookup, Search, key_of_lookup, lookup_id
from lodestar_extproc.routing.open_decisions import OpenDecision

KEPT_FOR_S = 24 * 3600.0
"""After their last use. Engines keep them until they restart, or they run out of memory."""


class KeptAnswers:
    """Remembers them, and who is asked for what is not known.

    Args:
        fleet: counts those that are computed in the background until they end.
        unended: decisions whose answers have not ended.

    Attributes:
        listener: is told what is heard here, for those who do not hear it.
    """

    def __init__(self, fleet: Fleet, unended: Iterable[OpenDecision] = ()) -> None:
        self.listener: KeptListener | None = None
        self._fleet = fleet
        self._unended = unended
        self._memory = KeptMemory()
        self._search = Search()
        self._key_of_open: dict[str, int] = {}
        self._in_background: dict[str, Kept] = {}
        # Older engines do. OpenAI's API says that instructions are each turn's own, and newer
        # engines follow it; what the engine counts tells.
        self._keeps_head = True

    # -- requests ---------------------------------------------------------------------------------

    def look_up(self, pool: str, name: str, at_s: float, subset: Subset | None) -> Lookup:
        """Where *name* is kept, or may be, and what its answer is to be known by."""
        key = name_key(name) if name else 0
        kept = self._recall(key, at_s)
        who = [e.address for e in self._fleet.endpoints] if kept is None else [kept.address]
        allowed = [a for a in who if subset is None or a in subset]
        if kept is None:
            may_keep = [a for a in allowed if key and self._fleet.is_up(a, at_s)]
            return Lookup(self._search.next(key, may_keep), lookup_id(pool, key))
        return Lookup(tuple(allowed), lookup_id(pool, key))

    def knows(self, key: int) -> bool:
        """Whether anyone is known to keep what has this key."""
        return self._memory.get(key) is not None

    def may_be_told(self) -> bool:
        """Whether an answer on its way, or another replica, may tell of one in a moment."""
        return self._fleet.peers.any or any(self._owes(each.decision) for each in self._unended)

    def _owes(self, decision: Decision) -> bool:
        """Whether the answer to *decision* will tell what is kept, and has not yet."""
        keeping = decision.candidates.request.keeping or Keeping()
        return keeping.keeps_answer and decision.decision_id not in self._key_of_open

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
        prompt = self._memory.prompt_of(kept)
        if prompt is not None:
            request = continued(
                request,
                own,
                prompt,
                kept.reply_tokens,
                own.continues,
                keeps_head=self._keeps_head,
            )
        return request, kept.address

    def _recall(self, key: int, at_s: float) -> Kept | None:
        """What is kept under *key*, used now; forgotten where its endpoint has left.

        One that is down or ejected may be back with all it kept, and no other has it.
        """
        kept = self._memory.get(key)
        if kept is None:
            return None
        if not self._fleet.is_member(kept.address):
            self._forget(key, at_s)
            return None
        kept.used_at_s = at_s
        self._memory.use(key)
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
        elif key_of_lookup(event.decision_id) is None:
            return  # every chat has an id, and hardly any is kept
        kept = self._memory.get(key)
        if kept is None:
            address = event.served or (None if decision is None else decision.address)
            if address is None:
                return
            kept = self._keep(key, Kept(address, event.at_s), prompt)
        self._memory.use(key)
        reply_tokens = None if event.output_tokens is None else float(event.output_tokens)
        self._note(kept, event.state, reply_tokens, event.at_s)
        self._tell(key, "" if decision is None else decision.decision_id, event.at_s)

    def _note(self, kept: Kept, state: KeptState, reply_tokens: float | None, at_s: float) -> None:
        kept.used_at_s, kept.state = at_s, state
        if reply_tokens is not None:
            kept.reply_tokens = reply_tokens
        if state is KeptState.ENDED:
            self._let_go(kept, at_s)

    def _lost(self, event: KeptAnswer, decision: Decision | None) -> None:
        """Who should keep it does not."""
        if event.name:
            key = name_key(event.name)
        elif decision is None:
            key = key_of_lookup(event.decision_id) or 0
        else:
            keeping = decision.candidates.request.keeping
            key = (keeping.continues if keeping else None) or 0
        kept = self._memory.get(key)
        if kept is not None and event.served in (None, kept.address):
            self._forget(key, event.at_s)
            if self.listener is not None:
                self.listener.gone(key, kept.address)

    def ended(self, request: EndedRequest) -> bool:
        """A request ended; whether its engine computes on, so that its load stays."""
        decision, completion = request.decision, request.completion
        key = self._key_of_open.pop(decision.decision_id, None)
        prompt = decision.candidates.request
        keeping = prompt.keeping
        if keeping is None or not request.used:
            return False
        address = request.served or decision.address
        counted = counts_head(prompt, keeping, completion.prompt_tokens)
        self._keeps_head = self._keeps_head if counted is None else counted
        if request.is_served and keeping.is_conversation and keeping.continues is not None:
            self._forget(keeping.continues, completion.at_s)
            said = self._keep(keeping.continues, Kept(address, completion.at_s), prompt)
            said.reply_tokens = _reply_tokens(request)
            self._tell(keeping.continues, decision.decision_id, completion.at_s)
        kept = None if key is None else self._memory.get(key)
        if key is None or kept is None:
            return False
        kept.address = address
        kept.reply_tokens = kept.reply_tokens or _reply_tokens(request)
        self._tell(key, decision.decision_id, completion.at_s)
        left_running = completion.form is AnswerForm.PROMISE or request.ending is Ending.CLIENT_GONE
        if not (keeping.in_background and kept.state is KeptState.RUNNING and left_running):
            return False
        kept.decision_id = decision.decision_id
        self._in_background[kept.decision_id] = kept
        expected_at_s = decision.at_s + decision.expected_ttft_s
        self._fleet.goes_on(kept.decision_id, completion.at_s, expected_at_s)
        if self.listener is not None:
            self.listener.goes_on(kept.decision_id, completion.at_s)
        return True

    # -- memory -----------------------------------------------------------------------------------

    def expire(self, at_s: float, background_for_s: float) -> None:
        """Forget what was not used for long, and the load of which was not heard for so long."""
        for kept in list(self._in_background.values()):
            if kept.used_at_s <= at_s - background_for_s:
                self._let_go(kept, at_s)
        while (oldest := self._memory.oldest()) is not None:
            key, kept = oldest
            if kept.used_at_s > at_s - KEPT_FOR_S:
                return
            self._forget(key, at_s)

    @property
    def n_in_background(self) -> int:
        """Answers that are computed, and for which no request waits."""
        return len(self._in_background)

    def _keep(self, key: int, kept: Kept, prompt: InferenceRequest | None) -> Kept:
        self._memory.add(key, kept, prompt)
        self._search.found(key)
        excess = self._memory.excess()
        while excess is not None and excess != key:
            self._forget(excess, kept.used_at_s)
            excess = self._memory.excess()
        return kept

    def _forget(self, key: int, at_s: float) -> None:
        kept = self._memory.pop(key)
        if kept is not None:
            self._let_go(kept, at_s)

    def _let_go(self, kept: Kept, at_s: float) -> None:
        """It is no load any more."""
        if self._in_background.pop(kept.decision_id, None) is not None:
            self._fleet.release(kept.decision_id, at_s)
            if self.listener is not None:
                self.listener.over(kept.decision_id, at_s)
            kept.decision_id = ""

    def _tell(self, key: int, decision_id: str, at_s: float) -> None:
        if self.listener is not None:
            self.listener.heard(key, decision_id, at_s)

    # -- what others know -------------------------------------------------------------------------

    def get(self, key: int) -> Kept | None:
        """What is known of *key*, for those who tell others."""
        return self._memory.get(key)

    def recent(self, most: int) -> Iterator[tuple[int, Kept]]:
        """Up to *most* of all, the most recently used first."""
        return self._memory.recent(most)

    def take(self, key: int, told: Kept) -> None:
        """Another replica, or a process before us, knows *told*; nobody is told in turn."""
        kept, prompt = self._memory.get(key), told.prompt
        if kept is None or (prompt is not None and _tells_more(prompt, kept)):
            self._forget(key, told.used_at_s)
            told.prompt = None
            kept = self._keep(key, told, prompt)
        self._memory.use(key)
        kept.address = told.address
        self._note(kept, told.state, told.reply_tokens or None, told.used_at_s)

    def take_gone(self, key: int, address: str, at_s: float) -> None:
        """Another replica was told that *address* keeps it no more."""
        kept = self._memory.get(key)
        if kept is not None and kept.address == address:
            self._forget(key, at_s)


def _tells_more(prompt: InferenceRequest, kept: Kept) -> bool:
    """Whether *kept* stands for another prompt by now, or for one of which less was known."""
    if kept.prompt is None or kept.prompt.prompt_bytes != prompt.prompt_bytes:
        return True
    return bool(prompt.block_hashes) and not kept.n_blocks


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
