"""Candidates: what a policy sees. Ranking: what it answers. Decision: what goes out and is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.computed_once import ComputedOnce
from lodestar_extproc.endpoint import FleetSnapshot, FloatArray
from lodestar_extproc.features import (
    FeatureMatrix,
    extract,
    queued_tokens,
    uncached_prompt_tokens,
)
from lodestar_extproc.fleet.demand import DemandSnapshot
from lodestar_extproc.request import InferenceRequest


@dataclass(eq=False)
class Candidates:
    """One request beside every endpoint that could serve it; nobody changes it.

    It is not frozen: that would add a hundredth to what a decision costs.

    Attributes:
        matched_tokens: [n_endpoints], prompt tokens each cache probably holds.
        matched_ratio: [n_endpoints], full blocks matched over full blocks, 0 to 1.
        prefill_s_per_ktoken: [n_endpoints], learned, at the time of the decision.
        adapter_effort: [n_endpoints], 0 where the request's adapter runs, to 1; None without one.
        tpot_s: [n_endpoints], predicted, NaN where unknown; None for a request without a bound.
        tpot_slo_s: the bound on it.
        demand: what the pool is asked for besides; None where no policy reads it.
    """

    request: InferenceRequest
    snapshot: FleetSnapshot
    matched_tokens: FloatArray
    matched_ratio: FloatArray
    prefill_s_per_ktoken: FloatArray
    adapter_effort: FloatArray | None = None
    tpot_s: FloatArray | None = None
    tpot_slo_s: float | None = None
    demand: DemandSnapshot | None = None

    @property
    def misses_tpot(self) -> NDArray[np.bool_]:
        """Endpoints that are predicted to be too slow between tokens, [n_endpoints]."""
        if self.tpot_s is None or self.tpot_slo_s is None:
            return np.zeros(len(self), dtype=bool)
        return self.tpot_s > self.tpot_slo_s

    @ComputedOnce
    def features(self) -> FeatureMatrix:
        """For the predictor, computed once, if at all: a fixed rule needs none of it."""
        rate = self.prefill_s_per_ktoken
        return extract(self.request, self.snapshot, self.matched_tokens, rate)

    @property
    def has_features(self) -> bool:
        """Whether they are at hand."""
        return "features" in vars(self)

    def row(self, index: int) -> FloatArray | None:
        """The features of the endpoint at *index*, [N_FEATURES]; None where nobody asked yet."""
        computed: FeatureMatrix | None = vars(self).get("features")
        return None if computed is None else computed.row(index).copy()

    def let_go(self) -> None:
        """Forget what was computed of it for the choice: who asks again has it computed again.

        A decision is kept until its answer has ended, and longer for the page.
        """
        vars(self).pop("features", None)
        self.snapshot.let_go()

    @property
    def uncached_tokens(self) -> FloatArray:
        """Prompt tokens each endpoint would compute, [n_endpoints]."""
        return uncached_prompt_tokens(self.request.prompt_tokens, self.matched_tokens)

    def work_tokens_on(self, index: int) -> float:
        """Prompt tokens to compute until the first token: those ahead, and its own."""
        ahead = queued_tokens(self.snapshot, self.prefill_s_per_ktoken)
        return float(ahead[index]) + self.uncached_on(index)

    def uncached_on(self, index: int) -> float:
        """Prompt tokens the endpoint at *index* would compute."""
        return max(self.request.prompt_tokens - float(self.matched_tokens[index]), 1.0)

    def __len__(self) -> int:
        return len(self.snapshot.endpoints)


class Reason(StrEnum):
    """Why this ranking: reported with every decision."""

    POLICY = "policy"
    """A fixed rule decided."""
    MODEL = "model"
    """The predictor decided. Dashboards read this spelling: here alone `model` is the predictor."""
    BURN_IN = "burn_in"
    """Too few samples yet: the fallback decided."""
    UNTRUSTED = "untrusted"
    """The predictor's live error is too high: the fallback decided."""
    OUT_OF_RANGE = "out_of_range"
    """A candidate lies outside all that was learned: the fallback decided."""
    EXPLORATION = "exploration"
    """An under-sampled endpoint was tried on purpose."""
    ONLY_ENDPOINT = "only_endpoint"
    KEEPER = "keeper"
    """The endpoint keeps the answer or conversation that the prompt goes on from."""
    UNPARSED = "unparsed"
    """The body could not be read: no prompt to predict from."""


class CostAccount(Protocol):
    """What a policy weighed, for those who ask why; to ask changes nothing.

    Attributes:
        cost_s: [n_endpoints], what the candidates were ranked by.
        fallback_policy: who ranks while the predictor may not.
    """

    @property
    def cost_s(self) -> FloatArray: ...

    @property
    def fallback_policy(self) -> str: ...

    def terms_s(self, candidates: Candidates) -> Mapping[str, FloatArray]:
        """Each part of the cost by its name, [n_endpoints]."""

    def interval_s(self, candidates: Candidates) -> tuple[FloatArray, FloatArray]:
        """Where 80 % of the TTFTs predicted so fall, low and high, [n_endpoints] each."""

    def fallback_choice(self, candidates: Candidates) -> int | None:
        """Where the fallback would have sent it; None where that cannot be told any more."""


class Ranking(NamedTuple):
    """A policy's answer: endpoints from best to worst.

    Attributes:
        order: indices into the snapshot's endpoints, each once.
        predicted_ttft_s: [n_endpoints]; None where the policy predicts nothing.
        propensity: probability with which the first was chosen, given the candidates.
        service_s: [n_endpoints], seconds of service the request would add; None if not predicted.
        account: what was weighed; None where nothing was.
        row: features of the first, [N_FEATURES]; None where it was not ranked by them.
    """

    order: tuple[int, ...]
    reason: Reason = Reason.POLICY
    predicted_ttft_s: FloatArray | None = None
    propensity: float = 1.0
    service_s: FloatArray | None = None
    account: CostAccount | None = None
    row: FloatArray | None = None

    def led_by(self, order: tuple[int, ...]) -> Ranking:
        """The same in another order."""
        row = self.row if order[0] == self.order[0] else None
        return self._replace(order=order, row=row)


UNTRAINED_S_PER_KTOKEN = 0.1
"""Prefill time before anything is predicted, between a fast and a slow accelerator's."""


class Decision(NamedTuple):
    """Where one request was sent and all that is needed to learn from what followed.

    Attributes:
        decision_id: opaque, unguessable; joins first token and access log to this decision.
        at_s: monotonic seconds.
        policy: the name of the policy in force (the reason says who decided).
        shadows: what other policies, which never decide, would have chosen: (name, index).
        predicted_by: the predictor behind the ranking's predictions; None where it has none.
        row: features of the best endpoint, [N_FEATURES]; None where nothing was predicted by them.
        held_s: how long it had been held here before; the client waited for that, too.
    """

    decision_id: str
    request_id: str
    at_s: float
    pool: str
    policy: str
    candidates: Candidates
    ranking: Ranking
    shadows: tuple[tuple[str, int], ...] = ()
    predicted_by: str | None = None
    row: FloatArray | None = None
    held_s: float = 0.0

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every candidate's address, best first."""
        endpoints = self.candidates.snapshot.endpoints
        return tuple(endpoints[i].address for i in self.ranking.order)

    @property
    def address(self) -> str:
        """The best endpoint's."""
        return self.candidates.snapshot.endpoints[self.ranking.order[0]].address

    @property
    def chosen(self) -> int:
        """Index of the best endpoint in the snapshot."""
        return self.ranking.order[0]

    @property
    def predicted_ttft_s(self) -> float | None:
        """Of the best endpoint; None where nothing was predicted."""
        predicted = self.ranking.predicted_ttft_s
        return None if predicted is None else float(predicted[self.chosen])

    @property
    def expected_ttft_s(self) -> float:
        """As predicted for the best endpoint, or guessed where nothing was."""
        predicted_s = self.predicted_ttft_s
        if predicted_s is not None:
            return predicted_s
        return self.candidates.work_tokens_on(self.chosen) * 1e-3 * UNTRAINED_S_PER_KTOKEN

    def features_of(self, index: int) -> FloatArray:
        """The features of the candidate at *index*, [N_FEATURES], as the decision was made on."""
        if index == self.chosen and self.row is not None:
            return self.row
        return self.candidates.features.row(index)

    def tried_before(self, address: str) -> tuple[str, ...]:
        """The choices that retries take before *address*; none if it was no candidate."""
        ranked = self.addresses
        return ranked[: ranked.index(address)] if address in ranked else ()

    def without_prompt(self) -> Decision:
        """The same, less the prompt's hashes: of many long prompts they are many megabytes."""
        request = self.candidates.request._replace(block_hashes=())
        return self._replace(candidates=replace(self.candidates, request=request))

    def index_of(self, address: str) -> int | None:
        """Where *address* stands in the snapshot; None if it was no candidate."""
        if address == self.address:
            return self.chosen
        for i, endpoint in enumerate(self.candidates.snapshot.endpoints):
            if endpoint.address == address:
                return i
        return None
