"""The worked decision of docs/learning.md: every number of its tables, out of the code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from learning_worlds import NEVER, a_snapshot, see
from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.features import ENGINE_FEATURES
from lodestar_extproc.fleet.demand import DemandSnapshot
from lodestar_extproc.fleet.lost_prefixes import NOTHING_MISSED
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import Externality, arrival_rate, busy_ratio, utilisation

PAGE = Path(__file__).parents[1] / "docs" / "learning.md"
A, B = Endpoint("a:8000", "h100"), Endpoint("b:8000", "a30")
THETA = {
    "h100": (0.03, 0.05, 0.01, 0.005, 0.01, 0.02, 0.02, 0.1),
    "a30": (0.03, 0.19, 0.02, 0.01, 0.02, 0.05, 0.02, 0.1),
}
ARRIVALS_PER_S = 4.0
SERVICE_RATIO = np.array([0.6, 0.3])
ASKED_AGAIN_RATIO = np.array([0.1, 0.6])
MEMORY_RATIO = np.array([0.2, 0.15])
DEMAND = DemandSnapshot(
    ARRIVALS_PER_S, SERVICE_RATIO, ASKED_AGAIN_RATIO, MEMORY_RATIO, NOTHING_MISSED
)
WEIGHT, DECODE_WEIGHT, EVICTION_WEIGHT, MEMORY_WEIGHT_S = 2.0, 0.15, 1.0, 0.3


def the_request_and_the_fleet() -> Candidates:
    """A prompt of 2000 tokens; A is fast and busy, B is slow and has nothing queued."""
    snapshot = a_snapshot(
        (A, B),
        at_s=100.0,
        prefill_requests=[1, 0],
        prefill_uncached_tokens=[5000, 0],
        prefill_prompt_tokens=[5000, 0],
        prefill_pairs=[5000 * (5000 - 5000 / 2), 0],
        head_uncached_tokens=[5000, 0],
        head_dispatched_at_s=[99.935, NEVER],
        decode_requests=[48, 8],
        decode_context_tokens=[40_000, 5_000],
        kv_capacity_tokens=[200_000, 40_000],
    )
    candidates = see(snapshot, 2000.0)
    rate = np.array([THETA[e.accelerator][1] for e in snapshot.endpoints])
    return Candidates(
        candidates.request,
        snapshot,
        candidates.matched_tokens,
        candidates.matched_ratio,
        prefill_s_per_ktoken=rate,
        demand=DEMAND,
    )


def a_predictor() -> EnginePredictor:
    """One that has learned `THETA`."""
    predictor = EnginePredictor()
    state = predictor.state()
    for accelerator, theta in THETA.items():
        state["pools"][accelerator] = state["fleet"] | {"coefficients": list(theta)}
    predictor.restore(state)
    return predictor


def a_cost() -> Externality:
    live = LiveSettings(
        PoolSettings(
            externality_weight=WEIGHT,
            decode_weight=DECODE_WEIGHT,
            eviction_weight=EVICTION_WEIGHT,
            memory_weight_s=MEMORY_WEIGHT_S,
        )
    )
    return Externality(live)


@dataclass
class Worked:
    """The example, and each figure of the page by the name it has there."""

    candidates: Candidates
    estimate: Estimate
    function: Externality

    @cached_property
    def terms(self) -> dict[str, FloatArray]:
        """Each term of the cost, from its formula, [2]."""
        x, v = self.estimate.service_s, self.estimate.backlog_s
        rate = arrival_rate(DEMAND, self.estimate)
        busy = busy_ratio(DEMAND)
        snapshot = self.candidates.snapshot
        share = self.candidates.request.prompt_tokens / snapshot.kv_capacity_tokens
        used = snapshot.memory_used_ratio + share
        queue = WEIGHT * rate / (2 * (1 - busy)) * (2 * v * x + x * x)
        slower_tokens = DECODE_WEIGHT * snapshot.decode_requests * x
        return {
            "p": self.estimate.ttft_s,
            "queue": queue,
            "slower tokens": slower_tokens,
            "evictions": EVICTION_WEIGHT * ASKED_AGAIN_RATIO * (x + queue + slower_tokens),
            "memory": MEMORY_WEIGHT_S * share * used / (1 - used),
        }

    @cached_property
    def figures(self) -> dict[str, FloatArray]:
        """Everything the tables of the page show, [2]."""
        features = dict(zip(ENGINE_FEATURES, self.candidates.features.engine.T, strict=True))
        snapshot = self.candidates.snapshot
        share = self.candidates.request.prompt_tokens / snapshot.kv_capacity_tokens
        derived = {
            "x": self.estimate.service_s,
            "v": self.estimate.backlog_s,
            "c": self.estimate.s_per_ktoken,
            "λ": arrival_rate(DEMAND, self.estimate),
            "ρ": utilisation(DEMAND),  # noqa: RUF001  (the formula's letter)
            "r": busy_ratio(DEMAND),
            "h": (self.terms["queue"] + self.terms["slower tokens"]) / self.estimate.service_s,
            "s": share,
            "u": snapshot.memory_used_ratio + share,
            "cost": self.function.score(self.estimate, self.candidates),
        }
        return features | derived | self.terms


@pytest.fixture(scope="module")
def worked() -> Worked:
    candidates = the_request_and_the_fleet()
    estimate = a_predictor().predict(candidates.features, candidates.snapshot.endpoints)
    return Worked(candidates, estimate, a_cost())


def shown() -> dict[str, tuple[str, str]]:
    """The figures of the page for A and B, by the first cell of their row without its marks."""
    section = PAGE.read_text().split("## One decision, with its numbers")[1].split("\n## ")[0]
    rows = re.findall(
        r"^\|([^|\n]+)\|(?:[^|\n]+\|)*? *([\d.]+) *\| *([\d.]+) *\|$", section, re.MULTILINE
    )
    return {name.strip().strip("*`"): (a, b) for name, a, b in rows}


def test_the_page_shows_every_figure(worked):
    assert set(worked.figures) <= set(shown())


@pytest.mark.parametrize("name", sorted(shown()))
def test_a_figure_of_the_page_comes_out_of_the_code(worked, name):
    for text, value in zip(shown()[name], worked.figures[name], strict=True):
        half_a_digit = 0.5 * 10 ** -len(text.partition(".")[2])
        assert float(text) == pytest.approx(float(value), abs=half_a_digit * 1.01)


def test_the_terms_add_up_to_the_cost_and_the_slower_endpoint_is_chosen(worked):
    cost = worked.figures["cost"]

    assert sum(worked.terms.values()) == pytest.approx(cost)
    assert worked.estimate.ttft_s.argmin() == 0
    assert cost.argmin() == 1
