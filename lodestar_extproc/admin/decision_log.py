"""DecisionLog: the last decisions, why each was made, and what followed; never a prompt's text.

It listens to the routers and answers questions; it decides nothing and keeps nothing on disk.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from lodestar_extproc.completion import Outcome
from lodestar_extproc.decision import Decision, Reason
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.features import FEATURES
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken

CAPACITY = 256
"""Decisions kept, as many as the page asks for. A judgement: a few MiB with their candidates."""
MAX_HELD_BLOCKS = 256
"""Hashes of a longer prompt are let go when its request has ended. 16 KiB of text: most chats."""

_WHY = (
    (Reason.POLICY, "its rule ranked it first"),
    (Reason.MODEL, "the predictor ranked it first"),
    (Reason.BURN_IN, "the predictor had too few samples, so the fallback ranked it first"),
    (Reason.UNTRUSTED, "the predictor's live error was too high, so the fallback ranked it first"),
    (Reason.OUT_OF_RANGE, "it was unlike anything learned, so the fallback ranked it first"),
    (Reason.EXPLORATION, "little was known of it, so it was tried on purpose"),
    (Reason.ONLY_ENDPOINT, "there was no other"),
    (Reason.KEEPER, "it keeps what the prompt goes on from"),
    (Reason.UNPARSED, "the body could not be read, so the fallback ranked it first"),
)


@dataclass(slots=True)
class LoggedDecision:
    """One decision, and what its router has told of it until now."""

    decision: Decision
    first_token: ObservedFirstToken | None = None
    ended: EndedRequest | None = None

    @property
    def so_far(self) -> ObservedFirstToken | EndedRequest | None:
        """The last that was told."""
        return self.first_token if self.ended is None else self.ended

    @property
    def ttft_s(self) -> float | None:
        return None if self.so_far is None else self.so_far.ttft_s

    @property
    def served(self) -> str | None:
        return None if self.so_far is None else self.so_far.served

    @property
    def outcome(self) -> Outcome | None:
        return None if self.ended is None else self.ended.completion.outcome

    @property
    def duration_s(self) -> float | None:
        return None if self.ended is None else self.ended.completion.duration_s

    @property
    def used(self) -> bool:
        """False where Envoy went on without waiting for it."""
        return self.ended is None or self.ended.used

    def address(self, index: int) -> str:
        return self.decision.candidates.snapshot.endpoints[index].address

    def predicted_s(self, index: int) -> float | None:
        """Predicted TTFT on the candidate at *index*."""
        predicted = self.decision.ranking.predicted_ttft_s
        return None if predicted is None else float(predicted[index])


class DecisionLog:
    """The last *capacity* decisions, found by decision or request id."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._by_id: OrderedDict[str, LoggedDecision] = OrderedDict()

    # -- what routers report ---------------------------------------------------------------------

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`."""
        self._by_id[decision.decision_id] = LoggedDecision(decision)
        if len(self._by_id) > self._capacity:
            self._by_id.popitem(last=False)

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`."""
        logged = self._by_id.get(decision.decision_id)
        if logged is not None:
            logged.first_token = first_token

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`."""
        logged = self._by_id.get(request.decision.decision_id)
        if logged is None:
            return
        if len(request.decision.candidates.request.block_hashes) > MAX_HELD_BLOCKS:
            # Until now the router held them too.
            request = request.without_prompt()
            logged.decision = request.decision
        logged.ended = request

    # -- what is asked ---------------------------------------------------------------------------

    def last(self, limit: int, at_s: float) -> list[dict[str, Any]]:
        """The last *limit* decisions, newest first, as plain JSON types."""
        newest_first = reversed(self._by_id.values())
        return [
            _summary(logged, at_s) for logged, _ in zip(newest_first, range(limit), strict=False)
        ]

    def explain(self, any_id: str, at_s: float) -> dict[str, Any] | None:
        """All that is known of the decision, or of the last one of the request, *any_id*."""
        logged = self._by_id.get(any_id)
        if logged is None and any_id:
            newest_first = reversed(self._by_id.values())
            logged = next(
                (each for each in newest_first if each.decision.request_id == any_id), None
            )
        if logged is None:
            return None
        return _summary(logged, at_s) | {
            "explanation": _explanation(logged),
            "candidates": [
                _candidate(logged, rank, i) for rank, i in enumerate(logged.decision.ranking.order)
            ],
        }


def _summary(logged: LoggedDecision, at_s: float) -> dict[str, Any]:
    decision = logged.decision
    candidates, ranking, request = (
        decision.candidates,
        decision.ranking,
        decision.candidates.request,
    )
    chosen = decision.chosen
    predicted: dict[str, float] | None = None
    if ranking.predicted_ttft_s is not None:
        values = zip(candidates.snapshot.endpoints, ranking.predicted_ttft_s.tolist(), strict=True)
        predicted = {endpoint.address: value for endpoint, value in values}
    return {
        "decision_id": decision.decision_id,
        "request_id": decision.request_id,
        "age_s": at_s - decision.at_s,
        "pool": decision.pool,
        "policy": decision.policy,
        "reason": ranking.reason,
        "model": request.model,
        "named_model": request.named_model,
        "priority": request.priority,
        "kind": request.kind,
        "streaming": request.streaming,
        "prompt_tokens": request.prompt_tokens,
        "chosen": logged.address(chosen),
        "matched_tokens": float(candidates.matched_tokens[chosen]),
        "predicted_ttft_s": logged.predicted_s(chosen),
        "predicted_by": decision.predicted_by,
        "predicted_ttft_s_by_endpoint": predicted,
        "propensity": ranking.propensity,
        "shadows": {policy: logged.address(i) for policy, i in decision.shadows},
        "ttft_s": logged.ttft_s,
        "served": logged.served,
        "outcome": logged.outcome,
        "duration_s": logged.duration_s,
        "used": logged.used,
    }


def _candidate(logged: LoggedDecision, rank: int, index: int) -> dict[str, Any]:
    candidates = logged.decision.candidates
    snapshot = candidates.snapshot
    return {
        "rank": rank + 1,
        "endpoint": logged.address(index),
        "accelerator": snapshot.endpoints[index].accelerator,
        "predicted_ttft_s": logged.predicted_s(index),
        "matched_tokens": float(candidates.matched_tokens[index]),
        "uncached_tokens": float(candidates.uncached_tokens[index]),
        "prefill_requests": float(snapshot.prefill_requests[index]),
        "prefill_tokens": float(snapshot.prefill_uncached_tokens[index]),
        "decode_requests": float(snapshot.decode_requests[index]),
        "predicted_tpot_s": _at(candidates.tpot_s, index),
        "adapter_effort": _at(candidates.adapter_effort, index),
        "scrape_age_s": float(snapshot.scrape_age_s[index]),
        "features": dict(zip(FEATURES, logged.decision.features_of(index).tolist(), strict=True)),
    }


def _at(values: FloatArray | None, index: int) -> float | None:
    """The value of one candidate; None where it is unknown."""
    return None if values is None or math.isnan(values[index]) else float(values[index])


def _explanation(logged: LoggedDecision) -> str:
    """Say in sentences why the decision was made and what followed."""
    decision = logged.decision
    candidates, chosen = decision.candidates, decision.chosen
    why = dict(_WHY)[decision.ranking.reason]
    n, address = len(candidates), logged.address(chosen)
    text = (
        f"Policy {decision.policy} chose {address} of {n}: {why}. "
        f"Its cache was expected to hold {candidates.matched_tokens[chosen]:.0f} of "
        f"{candidates.request.prompt_tokens:.0f} prompt tokens. "
    )
    if candidates.misses_tpot.any():
        text += "Endpoints that would miss the bound on TPOT came last. "
    if candidates.adapter_effort is not None:
        text += "Endpoints at hand for the adapter came before others. "
    predicted_s = logged.predicted_s(chosen)
    if predicted_s is not None:
        others = [logged.predicted_s(i) or 0.0 for i in decision.ranking.order[1:]]
        best = f", the best other {min(others):.3f} s" if others else ""
        text += f"Predicted TTFT {predicted_s:.3f} s (predictor {decision.predicted_by}){best}. "
    return text + _what_followed(logged)


def _what_followed(logged: LoggedDecision) -> str:
    if not logged.used:
        return "Envoy did not wait for the choice and went on by its own policy."
    text = "" if logged.ttft_s is None else f"Observed TTFT {logged.ttft_s:.3f} s. "
    if logged.served is not None and logged.served != logged.address(logged.decision.chosen):
        text += f"It was served by {logged.served}. "
    return text + (f"It ended as {logged.outcome}." if logged.outcome else "It has not ended yet.")
