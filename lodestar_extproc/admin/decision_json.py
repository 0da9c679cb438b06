"""One decision as plain JSON types: for `/decisions`, `/explain`, the page and the command."""

from __future__ import annotations

import math
from typing import Any

from lodestar_extproc.admin.explanation import explanation
from lodestar_extproc.decision import Decision
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.features import FEATURES
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken


def summary(
    decision: Decision,
    first_token: ObservedFirstToken | None,
    ended: EndedRequest | None,
    at_s: float,
) -> dict[str, Any]:
    """The request, the choice and what followed; one row of a list."""
    candidates, ranking, request = (
        decision.candidates,
        decision.ranking,
        decision.candidates.request,
    )
    so_far = first_token if ended is None else ended
    chosen, predicted = decision.chosen, ranking.predicted_ttft_s
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
        "chosen": _address(decision, chosen),
        "matched_tokens": float(candidates.matched_tokens[chosen]),
        "predicted_ttft_s": _at(predicted, chosen),
        "predicted_by": decision.predicted_by,
        "predicted_ttft_s_by_endpoint": None
        if predicted is None
        else {_address(decision, i): value for i, value in enumerate(predicted.tolist())},
        "propensity": ranking.propensity,
        "shadows": {policy: _address(decision, i) for policy, i in decision.shadows},
        "ttft_s": None if so_far is None else so_far.ttft_s,
        "served": None if so_far is None else so_far.served,
        "outcome": None if ended is None else ended.completion.outcome,
        "duration_s": None if ended is None else ended.completion.duration_s,
        "used": ended is None or ended.used,
    }


def explained(
    decision: Decision,
    first_token: ObservedFirstToken | None,
    ended: EndedRequest | None,
    at_s: float,
) -> dict[str, Any]:
    """All that is known of it: every candidate, what each would have cost, and why, in words."""
    weighed = _weighed(decision)
    answer = summary(decision, first_token, ended, at_s) | {
        "fallback": _fallback(decision),
        "candidates": [
            {"rank": rank + 1} | _candidate(decision, i) | weighed.get(i, {})
            for rank, i in enumerate(decision.ranking.order)
        ],
    }
    return answer | {"explanation": explanation(answer)}


def _candidate(decision: Decision, index: int) -> dict[str, Any]:
    candidates = decision.candidates
    snapshot = candidates.snapshot
    return {
        "endpoint": _address(decision, index),
        "accelerator": snapshot.endpoints[index].accelerator,
        "predicted_ttft_s": _at(decision.ranking.predicted_ttft_s, index),
        "matched_tokens": float(candidates.matched_tokens[index]),
        "uncached_tokens": float(candidates.uncached_tokens[index]),
        "prefill_requests": float(snapshot.prefill_requests[index]),
        "prefill_tokens": float(snapshot.prefill_uncached_tokens[index]),
        "decode_requests": float(snapshot.decode_requests[index]),
        "predicted_tpot_s": _at(candidates.tpot_s, index),
        "misses_tpot": bool(candidates.misses_tpot[index]),
        "adapter_effort": _at(candidates.adapter_effort, index),
        "scrape_age_s": float(snapshot.scrape_age_s[index]),
        "features": dict(zip(FEATURES, decision.features_of(index).tolist(), strict=True)),
    }


def _weighed(decision: Decision) -> dict[int, dict[str, Any]]:
    """What each candidate would have cost, and where its TTFT was expected, by index."""
    account, candidates = decision.ranking.account, decision.candidates
    if account is None:
        return {}
    terms = {name: term.tolist() for name, term in account.terms_s(candidates).items()}
    low, high = (ends.tolist() for ends in account.interval_s(candidates))
    return {
        i: {
            "cost_s": cost_s,
            "costs_s": {name: term[i] for name, term in terms.items()},
            "ttft_low_s": low[i],
            "ttft_high_s": high[i],
        }
        for i, cost_s in enumerate(account.cost_s.tolist())
    }


def _fallback(decision: Decision) -> dict[str, Any] | None:
    """What the fallback would have done; None where nobody fell back on it, or it is not known."""
    account = decision.ranking.account
    choice = None if account is None else account.fallback_choice(decision.candidates)
    if account is None or choice is None:
        return None
    return {"policy": account.fallback_policy, "endpoint": _address(decision, choice)}


def _address(decision: Decision, index: int) -> str:
    return decision.candidates.snapshot.endpoints[index].address


def _at(values: FloatArray | None, index: int) -> float | None:
    """The value of one candidate; None where it is unknown."""
    return None if values is None or math.isnan(values[index]) else float(values[index])
