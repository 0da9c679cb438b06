"""journal_answer(): a decision of a journal, as `/explain` would have shown it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from lodestar_extproc.admin.explanation import explanation
from lodestar_extproc.journal.entry import KNOWN_FORMATS


class NotInJournals(LookupError):  # noqa: N818  (the condition's name)
    """No line is about the id."""


def journal_answer(paths: Iterable[Path], any_id: str, wall_s: float) -> dict[str, Any]:
    """What is written of the decision, or of the last one of the request, *any_id*.

    Args:
        wall_s: now, seconds since 1970.

    Raises:
        NotInJournals: nothing is.
        ValueError: a file is no journal.
        OSError: one cannot be read.
    """
    found: list[tuple[dict[str, Any], Sequence[str]]] = []
    for path in paths:
        found += _lines(path, any_id)
    if not found:
        raise NotInJournals(any_id)
    fields, features = max(found, key=lambda each: float(each[0]["wall_s"]))
    answer = _answer(fields, features, wall_s)
    return answer | {"explanation": explanation(answer)}


def _lines(path: Path, any_id: str) -> Iterable[tuple[dict[str, Any], Sequence[str]]]:
    """The lines about *any_id*, and the names of the features there."""
    # As it stands in JSON; most lines are passed over without being read as such.
    wanted = orjson.dumps(any_id)
    features: Sequence[str] = ()
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number == 0 or line.startswith(b'{"journal"'):
                features = _header(line, path)
            elif wanted in line:
                fields = _object(line)
                if any_id in (fields.get("decision_id"), fields.get("request_id")):
                    yield fields, features


def _header(line: bytes, path: Path) -> Sequence[str]:
    fields = _object(line)
    if fields.get("journal") not in KNOWN_FORMATS:
        raise ValueError(f"{path} is no journal of a format that is known here")
    return tuple(map(str, fields.get("features", ())))


def _object(line: bytes) -> dict[str, Any]:
    """The object in *line*; empty where a crash left half of one."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _answer(fields: Mapping[str, Any], features: Sequence[str], wall_s: float) -> dict[str, Any]:
    addresses, order, request = fields["addresses"], fields["order"], fields["request"]
    predicted, chosen = fields["predicted_ttft_s"], fields["order"][0]
    fallback = fields.get("fallback")
    return {
        "decision_id": fields["decision_id"],
        "request_id": fields["request_id"],
        "age_s": wall_s - fields["wall_s"],
        "pool": fields["pool"],
        "policy": fields["policy"],
        "reason": fields["reason"],
        "model": request["model"],
        "named_model": request.get("named_model", request["model"]),
        "priority": request.get("priority", 0),
        "kind": request["kind"],
        "streaming": request["streaming"],
        "prompt_tokens": request["prompt_tokens"],
        "chosen": addresses[chosen],
        "matched_tokens": fields["matched_tokens"][chosen],
        "predicted_ttft_s": None if predicted is None else predicted[chosen],
        "predicted_by": fields.get("predicted_by"),
        "predicted_ttft_s_by_endpoint": None
        if predicted is None
        else dict(zip(addresses, predicted, strict=True)),
        "propensity": fields["propensity"],
        "shadows": {policy: addresses[i] for policy, i in fields["shadows"].items()},
        "ttft_s": fields["ttft_s"] if fields["ttft_s"] is not None else fields["envoy_ttft_s"],
        "served": fields["served"],
        "outcome": fields["outcome"],
        "duration_s": fields["duration_s"],
        "used": fields["used"],
        "fallback": None
        if fallback is None
        else {"policy": fallback["policy"], "endpoint": addresses[fallback["choice"]]},
        "candidates": [
            {"rank": rank + 1} | _candidate(fields, i, features) for rank, i in enumerate(order)
        ],
    }


def _candidate(fields: Mapping[str, Any], i: int, features: Sequence[str]) -> dict[str, Any]:
    snapshot, predicted, costs = fields["snapshot"], fields["predicted_ttft_s"], fields.get("costs")
    known = {
        "endpoint": fields["addresses"][i],
        "accelerator": fields["accelerators"][i],
        "predicted_ttft_s": None if predicted is None else predicted[i],
        "matched_tokens": fields["matched_tokens"][i],
        "uncached_tokens": max(
            fields["request"]["prompt_tokens"] - fields["matched_tokens"][i], 1.0
        ),
        "prefill_requests": snapshot["prefill_requests"][i],
        "prefill_tokens": snapshot["prefill_uncached_tokens"][i],
        "decode_requests": snapshot["decode_requests"][i],
        "scrape_age_s": snapshot["scrape_age_s"][i],
        "features": dict(zip(features, fields["features"][i], strict=False)),
    }
    if costs is None:
        return known
    return known | {
        "cost_s": costs["cost_s"][i],
        "costs_s": {name: term[i] for name, term in costs["terms_s"].items()},
        "ttft_low_s": costs["ttft_low_s"][i],
        "ttft_high_s": costs["ttft_high_s"][i],
    }
