"""Values with defaults, for tests that care about one thing at a time."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from lodestar_extproc.config import EdsFile, Pool, PoolSettings, Resolution
from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.demand import Demand
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.request import BLOCK_BYTES, InferenceRequest, RequestKind, hash_blocks


def an_endpoint(number: int = 1, **changes) -> Endpoint:
    return Endpoint(
        **{"address": f"10.0.0.{number}:8000", "kv_capacity_tokens": 40_000.0} | changes
    )


def a_request(prompt: bytes = b"x" * 4000, **changes) -> InferenceRequest:
    values = {
        "model": "m",
        "kind": RequestKind.CHAT_COMPLETIONS,
        "block_hashes": hash_blocks(prompt),
        "prompt_bytes": len(prompt),
        "prompt_tokens": len(prompt) / 4.0,
        "streaming": True,
    }
    return InferenceRequest(**values | changes)


def a_prompt(n_tokens: int, seed: int = 0) -> bytes:
    """Text of its own: no two seeds share a block."""
    return random.Random(seed).randbytes(n_tokens * 4)


def some_blocks(n_blocks: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(n_blocks * BLOCK_BYTES)


def a_fleet(n: int = 3, **changes) -> Fleet:
    return Fleet(live_settings(**changes), [an_endpoint(i + 1) for i in range(n)])


def live_settings(**changes) -> LiveSettings:
    """A pool's settings, all at their defaults but for *changes*."""
    return LiveSettings(PoolSettings(**changes))


def candidates_of(fleet: Fleet, request: InferenceRequest | None = None, at_s: float = 0.0):
    """What a policy sees of *fleet*, prefill at 0.1 s a thousand tokens."""
    request = a_request() if request is None else request
    snapshot = fleet.snapshot(at_s)
    tokens, ratio, *_ = fleet.match(request, snapshot.endpoints)
    return Candidates(request, snapshot, tokens, ratio, np.full(len(snapshot), 0.1))


def meet(demand: Demand, candidates: Candidates) -> Candidates:
    """The same, with what *demand* is as the request arrives."""
    request, snapshot, ratio = candidates.request, candidates.snapshot, candidates.matched_ratio
    return replace(candidates, demand=demand.snapshot(request, snapshot, ratio, ratio))


def send(demand: Demand, candidates: Candidates, chosen: int, service_s: float = 0.0) -> None:
    """The request leaves for candidate *chosen*."""
    met = meet(demand, candidates)
    demand.dispatch(
        met.request,
        met.snapshot,
        met.demand,
        met.snapshot.endpoints[chosen].address,
        uncached_tokens=met.uncached_on(chosen),
        service_s=service_s,
    )


def dispatch(fleet: Fleet, decision_id: str, address: str, request=None, at_s: float = 0.0, **kw):
    request = a_request() if request is None else request
    kw = {"uncached_tokens": request.prompt_tokens} | kw
    fleet.dispatch(decision_id, request, address, at_s=at_s, **kw)


DEFAULT_ENVOY_FILE = Path(__file__).parents[2] / "envoy" / "envoy.yaml"


def an_envoy_file(folder: Path, *edits: tuple[str, str], name: str = "envoy.yaml") -> Path:
    """The shipped default with every (old, new) text replaced; old has to be there."""
    text = DEFAULT_ENVOY_FILE.read_text()
    for old, new in edits:
        assert old in text, f"not in the default: {old}"
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


def with_route_metadata(key: str, value: str) -> tuple[str, str]:
    """An edit of the default file: one key of gRPC metadata on its route."""
    override = (
        "                typed_per_filter_config:\n"
        "                  lodestar.decide:\n"
        '                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute\n'
        f"                    overrides: {{grpc_initial_metadata: [{{key: {key}, value: {value}}}]}}\n"
    )
    before = "                route:\n"
    return before, override + before


def a_pool(*, eds: Path | None = None, **changes) -> Pool:
    """A static pool, or one read from the file *eds*."""
    if eds is not None:
        changes |= {"resolution": Resolution.EDS, "eds": EdsFile(eds, "engines")}
    return Pool(**{"name": "engines"} | changes)


def an_eds_file(folder: Path, *hosts: str, name: str = "eds.yaml") -> Path:
    """An assignment of `engines` to port 8000 of every host."""
    endpoints = "".join(
        f"    - endpoint: {{address: {{socket_address: {{address: {host}, port_value: 8000}}}}}}\n"
        for host in hosts
    )
    path = folder / name
    path.write_text(
        "resources:\n"
        '- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n'
        "  cluster_name: engines\n"
        f"  endpoints:\n  - lb_endpoints:\n{endpoints}"
    )
    return path


def an_ended_request(decision, completion, event=None, *, sees_first_tokens=True, **pool):
    """What a router tells of *decision* when *event*, if any, and then *completion* came.

    *pool* changes its settings `shadow` and `retry_candidates`.
    """
    from lodestar_extproc.routing.ended_request import (  # noqa: PLC0415  (imports the learner)
        ended_request,
        observed_first_token,
    )

    pool = {"shadow": False, "retry_candidates": 3} | pool
    first_token = None if event is None else observed_first_token(decision, event, **pool)
    shadow = pool["shadow"]
    return ended_request(
        decision, first_token, completion, shadow=shadow, sees_first_tokens=sees_first_tokens
    )


class Recorder:
    """A router listener that keeps what it was told."""

    def __init__(self) -> None:
        self.decisions, self.first_tokens, self.ended_requests = [], [], []

    def decided(self, decision) -> None:
        self.decisions.append(decision)

    def first_token(self, decision, first_token) -> None:
        self.first_tokens.append(first_token)

    def ended(self, request) -> None:
        self.ended_requests.append(request)

    @property
    def completions(self):
        return [request.completion for request in self.ended_requests]


def a_router(
    n: int = 3, *, listeners=(), sees_first_tokens: bool = True, origin: str = "", **settings
):
    from lodestar_extproc.routing.assembly import new_router  # noqa: PLC0415  (imports every model)

    return new_router(
        "pool",
        PoolSettings(**{"seed": 1} | settings),
        [an_endpoint(i + 1) for i in range(n)],
        listeners=listeners,
        sees_first_tokens=sees_first_tokens,
        origin=origin,
    )
