"""Entry: one decision and its outcome as a line of JSON. It knows no file.

A prompt is in it as salted hashes of some of its prefixes: equal ones tell that two prompts of one
file share a beginning, and whoever does not hold the salt can confirm no prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from lodestar_extproc.endpoint import SNAPSHOT_COLUMNS, FloatArray
from lodestar_extproc.features import FEATURES, FeatureMatrix
from lodestar_extproc.routing.ended_request import EndedRequest

FORMAT = 2  # of the lines written here
KNOWN_FORMATS = (1, 2)
"""Format 1 has no label, and in its snapshots the first tokens seen from each endpoint."""
_HASH_BYTES = 8  # as wide as a block's own hash


@dataclass(frozen=True, slots=True)
class Entry:
    """What one line is made of.

    Attributes:
        request: its decision without the prompt.
        prefixes: (length in blocks, hash) of some prefixes of the prompt, shortest first.
        wall_s: when the decision was made, seconds since 1970.
    """

    request: EndedRequest
    features: FeatureMatrix
    prefixes: tuple[tuple[int, int], ...]
    wall_s: float


def entry(request: EndedRequest, wall_s: float) -> Entry:
    """The entry of *request*, which ended just now, *wall_s*."""
    decision = request.decision
    return Entry(
        request=request.without_prompt(),
        features=decision.candidates.features,
        prefixes=_prefixes(decision.candidates.request.block_hashes),
        wall_s=wall_s - (request.completion.at_s - decision.at_s),
    )


def _prefixes(block_hashes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """At 1, 2, 4, 8 ... blocks and at the end: few, and yet they tell how far prompts are alike."""
    n = len(block_hashes)
    lengths = [1 << k for k in range(n.bit_length())]
    if n and lengths[-1] != n:
        lengths.append(n)
    # The first tells the model, too.
    first = block_hashes[0] if n else 0
    return tuple(
        (length, first if length == 1 else first ^ block_hashes[length - 1]) for length in lengths
    )


def header_line(opened_s: float) -> bytes:
    """The first line of a file, and again where a restart begins a new salt."""
    return _json({"journal": FORMAT, "opened_s": opened_s, "features": FEATURES})


def line(made: Entry, salt: bytes) -> bytes:
    """*made* as JSON; what is unknown is null."""
    return _json(_decided(made) | _request(made, salt) | _candidates(made) | _followed(made))


def _decided(made: Entry) -> dict[str, Any]:
    decision, ranking = made.request.decision, made.request.decision.ranking
    return {
        "decision_id": decision.decision_id,
        "request_id": decision.request_id,
        "pool": decision.pool,
        "wall_s": made.wall_s,
        "at_s": decision.at_s,
        "held_s": decision.held_s,
        "policy": decision.policy,
        "reason": ranking.reason,
        "propensity": ranking.propensity,
        "order": ranking.order,
        "shadows": dict(decision.shadows),
        "predicted_by": decision.predicted_by,
        **_weighed(made),
    }


def _weighed(made: Entry) -> dict[str, Any]:
    """What each candidate would have cost, and what the fallback would have done."""
    decision = made.request.decision
    account, candidates = decision.ranking.account, decision.candidates
    if account is None:
        return {"costs": None, "fallback": None}
    low, high = account.interval_s(candidates)
    terms = account.terms_s(candidates)
    choice = account.fallback_choice(candidates)
    return {
        "costs": {
            "cost_s": _short(account.cost_s),
            "terms_s": {name: _short(term) for name, term in terms.items()},
            "ttft_low_s": _short(low),
            "ttft_high_s": _short(high),
        },
        "fallback": None
        if choice is None
        else {"policy": account.fallback_policy, "choice": choice},
    }


def _short(values: FloatArray) -> Any:
    """Seven digits are enough to learn from, and half as long."""
    return np.ascontiguousarray(values, dtype=np.float32)


def _request(made: Entry, salt: bytes) -> dict[str, Any]:
    request = made.request.decision.candidates.request
    return {
        "request": {
            "model": request.model,
            "kind": request.kind,
            "streaming": request.streaming,
            "prompt_bytes": request.prompt_bytes,
            "prompt_tokens": request.prompt_tokens,
            "max_output_tokens": request.max_output_tokens,
            "ttft_slo_s": request.ttft_slo_s,
            "tpot_slo_s": request.tpot_slo_s,
            "priority": request.priority,
            "named_model": request.named_model,
            "prefix_hashes": [[length, _salted(h, salt)] for length, h in made.prefixes],
        }
    }


def _salted(block_hash: int, salt: bytes) -> str:
    data = block_hash.to_bytes(8, "little")
    return hashlib.blake2b(data, key=salt, digest_size=_HASH_BYTES).hexdigest()


def _candidates(made: Entry) -> dict[str, Any]:
    """Columns of all candidates, in one order."""
    candidates, ranking = made.request.decision.candidates, made.request.decision.ranking
    snapshot, predicted = candidates.snapshot, ranking.predicted_ttft_s
    return {
        "addresses": [endpoint.address for endpoint in snapshot.endpoints],
        "accelerators": [endpoint.accelerator for endpoint in snapshot.endpoints],
        "predicted_ttft_s": None if predicted is None else predicted.tolist(),
        "matched_tokens": candidates.matched_tokens.tolist(),
        "matched_ratio": candidates.matched_ratio.tolist(),
        "prefill_s_per_ktoken": candidates.prefill_s_per_ktoken.tolist(),
        "snapshot": {name: getattr(snapshot, name).tolist() for name in SNAPSHOT_COLUMNS},
        "features": _short(made.features.values),
    }


def _followed(made: Entry) -> dict[str, Any]:
    first, end = made.request.first_token, made.request.completion
    return {
        "outcome": end.outcome,
        "used": made.request.used,
        "served": made.request.served,
        "label": made.request.label,
        "ttft_s": None if first is None else first.ttft_s,
        # A body that began with a keep-alive or a role began before its first token.
        "envoy_ttft_s": None if first is not None and first.body_began_before else end.ttft_s,
        "duration_s": end.duration_s,
        "attempts": end.attempts,
        "response_code": end.response_code,
        "flags": end.flags,
        "usage": {
            "prompt_tokens": end.prompt_tokens,
            "cached_tokens": end.cached_tokens,
            "output_tokens": end.output_tokens,
        },
    }


def _json(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
