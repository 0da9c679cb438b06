"""Clairvoyant: what TTFT would be at each endpoint, by trying it on copies of the engines.

It sees true output lengths and queues, but no noise and no later arrivals: a bound for every router
that predicts, not for every router.
"""

from __future__ import annotations

import random

import numpy as np

from lodestar_extproc.decision import Candidates, Decision, Ranking, Reason
from lodestar_extproc.endpoint import FleetSnapshot, FloatArray
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import CostFunction
from lodestar_extproc.policies.protocol import Stateless, by_cost
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken
from lodestar_extproc.simulator.cluster import VirtualCluster

WATCHED = 1 << 60
"""The number under which a request is tried; no real one is as large."""
GATEWAY_S = 0.03
"""Of a TTFT at an idle engine what is neither waiting nor prefill: HTTP and half a step."""
MIN_BACKLOG_S = 0.0  # GATEWAY_S is a mean, and can exceed what is left


class Oracle:
    """Tries the request that is just arriving on copies of a cluster's engines."""

    def __init__(self) -> None:
        self._cluster: VirtualCluster | None = None

    def watch(self, cluster: VirtualCluster) -> None:
        """Foresee in *cluster*, which is made after its policies."""
        self._cluster = cluster

    def decode_context_tokens(self, address: str) -> float:
        """Prompt and generated tokens of all that decode at *address*, exactly."""
        assert self._cluster is not None
        return self._cluster.decode_context_tokens(address)

    def ttft_s(self, snapshot: FleetSnapshot) -> FloatArray:
        """Seconds to the first token at each endpoint of *snapshot*, [n]."""
        assert self._cluster is not None
        request = self._cluster.arriving
        assert request is not None
        by_address = {m.endpoint.address: m.engine for m in self._cluster.machines}
        ttft_s = []
        for endpoint in snapshot.endpoints:
            engine = by_address[endpoint.address].clone()
            engine.submit(
                WATCHED,
                request.block_ids,
                request.prompt_tokens,
                request.output_tokens,
                snapshot.at_s,
            )
            ttft_s.append(engine.run_to_first_token(WATCHED) - snapshot.at_s)
        return np.array(ttft_s)

    def estimate(self, candidates: Candidates) -> Estimate:
        """All that a cost function asks for, from true coefficients."""
        assert self._cluster is not None
        ttft_s = self.ttft_s(candidates.snapshot)
        specs = {m.endpoint.address: m.engine.spec for m in self._cluster.machines}
        costs = [specs[e.address].cost for e in candidates.snapshot.endpoints]
        s_per_ktoken = np.array([c.per_token_ms for c in costs])
        per_mpair_ms = np.array([c.per_mpair_ms for c in costs])
        own = candidates.uncached_tokens
        pairs = own * (candidates.request.prompt_tokens - own / 2)
        service_s = (s_per_ktoken * own + per_mpair_ms * pairs / 1e6) / 1e3
        backlog_s = np.maximum(ttft_s - service_s - GATEWAY_S, MIN_BACKLOG_S)
        return Estimate(ttft_s, service_s, backlog_s, s_per_ktoken)


class Clairvoyant(Stateless):
    """Ranks by a cost function's cost of true TTFTs."""

    def __init__(self, oracle: Oracle, cost: CostFunction) -> None:
        self.name = f"clairvoyant_{cost.name}"
        self.reads_demand = cost.reads_demand
        self._oracle = oracle
        self._cost = cost

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        estimate = self._oracle.estimate(candidates)
        order = by_cost(self._cost.score(estimate, candidates), rng)
        return Ranking(
            order,
            Reason.POLICY,
            predicted_ttft_s=estimate.ttft_s,
            service_s=estimate.service_s,
        )


class Hindsight:
    """Compares every *interval*-th decision with what the oracle would have chosen.

    Attributes:
        n_decisions, n_agreed: decisions looked at, and those that chose the endpoint of least TTFT.
        regret_s: TTFT lost in all of them against that endpoint.
    """

    def __init__(self, oracle: Oracle, interval: int = 10) -> None:
        self._oracle = oracle
        self._interval = interval
        self._n_seen = 0
        self.n_decisions = 0
        self.n_agreed = 0
        self.regret_s = 0.0

    def decided(self, decision: Decision) -> None:
        """Look at it, or not."""
        self._n_seen += 1
        if self._n_seen % self._interval:
            return
        ttft_s = self._oracle.ttft_s(decision.candidates.snapshot)
        lost_s = float(ttft_s[decision.chosen] - ttft_s.min())
        self.n_decisions += 1
        self.n_agreed += lost_s <= 0.0
        self.regret_s += lost_s

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """Nothing to compare."""

    def ended(self, request: EndedRequest) -> None:
        """Nothing to compare."""
