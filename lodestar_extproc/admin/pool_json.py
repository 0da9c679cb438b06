"""pool_json(): a pool as plain JSON types; what is unknown is NaN, which JSON writes as null."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.endpoint import FleetSnapshot
from lodestar_extproc.fleet.scraper import ScrapeCounts
from lodestar_extproc.gain.compared import Gain
from lodestar_extproc.learning.learner_status import EndpointStatus, LearnerStatus
from lodestar_extproc.routing.pool_view import PoolView


def pool_json(view: PoolView) -> dict[str, Any]:
    """Everything in *view* but its endpoints."""
    return {
        "pool": view.pool,
        "policy": view.policy,
        "open_decisions": view.open_decisions,
        "settings": shown_settings(view.settings),
        "share": view.share or None,
        "peers": view.peers,
        "learner": _learner(view.learner),
    }


def endpoints_json(view: PoolView) -> Iterator[dict[str, Any]]:
    """Everything about each of its endpoints."""
    known = {status.address: status for status in view.learner.endpoints}
    for i, (endpoint, state) in enumerate(zip(view.snapshot.endpoints, view.states, strict=True)):
        yield (
            {"address": endpoint.address, "state": state}
            | _endpoint(view.snapshot, i)
            | _scraping(view.scrapes.get(endpoint.address))
            | _learned(known.get(endpoint.address))
        )


def shown_settings(settings: PoolSettings) -> dict[str, str]:
    """Each setting as text, those that are not the default first."""
    default = PoolSettings()
    names = [each.name for each in fields(settings)]
    changed = [n for n in names if getattr(settings, n) != getattr(default, n)]
    return {n: str(getattr(settings, n)) for n in (*changed, *sorted(set(names) - set(changed)))}


def gain_json(gain: Gain) -> dict[str, Any]:
    """Everything in *gain*."""
    return asdict(gain) | {"verdict": gain.verdict}


def _endpoint(snapshot: FleetSnapshot, i: int) -> dict[str, Any]:
    endpoint = snapshot.endpoints[i]
    return {
        "accelerator": endpoint.accelerator,
        "engine": endpoint.engine,
        "prefill_requests": float(snapshot.prefill_requests[i]),
        "prefill_tokens": float(snapshot.prefill_uncached_tokens[i]),
        "decode_requests": float(snapshot.decode_requests[i]),
        "context_tokens": float(snapshot.decode_context_tokens[i]),
        "running_requests": float(snapshot.running_requests[i]),
        "waiting_requests": float(snapshot.waiting_requests[i]),
        "kv_usage_ratio": float(snapshot.kv_usage_ratio[i]),
        "kv_capacity_tokens": float(snapshot.kv_capacity_tokens[i]),
        "scrape_age_s": float(snapshot.scrape_age_s[i]),
    }


def _scraping(counts: ScrapeCounts | None) -> dict[str, Any]:
    counts = counts or ScrapeCounts()
    return {
        "scrapes_succeeded": counts.succeeded,
        "scrapes_failed": counts.failed,
        "last_scrape_failure": counts.last_failure,
    }


def _learned(status: EndpointStatus | None) -> dict[str, Any]:
    return {
        "samples": 0 if status is None else status.n_samples,
        "error_ratio": None if status is None else status.error_ratio,
        "doubtful": False if status is None else status.doubtful,
        "drifts": 0 if status is None else status.drifts,
    }


def _learner(status: LearnerStatus) -> dict[str, Any]:
    return {
        "predictor": status.predictor,
        "predicting": status.predicting,
        "state": status.reason,
        "samples": status.n_samples,
        "rejected": status.rejected,
        "uninformative": status.uninformative,
        "drifts": status.drifts,
        "error_ratio": status.error_ratio,
        "trivial_error_ratio": status.trivial_error_ratio,
        "coverage_ratio": status.coverage_ratio,
    }
