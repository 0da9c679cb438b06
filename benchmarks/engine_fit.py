"""Simulated engines in place of real ones: what they would have taken, and which costs fit best.

Routing is as it was recorded: each engine is given the requests its real one served, at their
times. It knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_runs import Run, Times
from scipy.optimize import brentq, minimize, minimize_scalar

from lodestar_extproc.simulator.accelerators import EngineSpec, StepCost
from lodestar_extproc.simulator.engine import Engine, EventKind

FITTED = (
    *("floor_ms", "base_ms", "per_token_ms", "per_mpair_ms", "per_decode_ms", "per_kcontext_ms"),
    "api_delay_s",
)
"""Fields of StepCost, and one of EngineSpec. `host_ms` is not told apart from the others."""
HOST = ("floor_ms", "base_ms", "per_decode_ms", "api_delay_s")
"""Those that the processor takes, not the accelerator, where kernels are launched one by one."""
EVALUATIONS = 500
SLOWEST = 3.0
"""A machine's pace differs from run to run by no more than this factor, either way."""
FIRST_STEP = 0.5
"""Of the logarithm of a coefficient: half as much again."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one endpoint served of a run.

    Attributes:
        pace: how many times as long the machine took in that run as in others.
    """

    run: Run
    numbers: NDArray[np.int64]
    pace: float = 1.0

    @property
    def times(self) -> Times:
        """As measured."""
        return Times(self.run.times.ttft_s[self.numbers], self.run.times.e2e_s[self.numbers])

    @property
    def output_tokens(self) -> NDArray[np.int64]:
        return self.run.output_tokens[self.numbers]

    def simulated(self, spec: EngineSpec) -> tuple[Times, Engine]:
        """As an engine of *spec* takes at this pace, and that engine afterwards."""
        engine = Engine(slower(spec, self.pace))
        at_s = self.run.at_s
        for number in self.numbers.tolist():
            prompt = self.run.prompts[number]
            engine.submit(
                number,
                prompt.block_ids,
                prompt.prompt_tokens,
                prompt.output_tokens,
                float(at_s[number]),
            )
        first, last = np.full_like(at_s, np.nan), np.full_like(at_s, np.nan)
        for event in engine.advance(math.inf):
            times = first if event.kind == EventKind.FIRST_TOKEN else last
            times[event.request] = event.at_s
        return Times((first - at_s)[self.numbers], (last - at_s)[self.numbers]), engine


def part_of(run: Run, endpoint: str, *, until_s: float = math.inf, pace: float = 1.0) -> Part:
    """The requests of *run* that *endpoint* served and that came before *until_s*."""
    return Part(run, np.flatnonzero((run.served_by == endpoint) & (run.at_s < until_s)), pace)


def simulate(run: Run, specs: Mapping[str, EngineSpec], pace: float = 1.0) -> tuple[Times, float]:
    """All of *run* on an engine for each endpoint; also the share of prompt tokens that hit."""
    ttft_s, e2e_s = np.full_like(run.at_s, np.nan), np.full_like(run.at_s, np.nan)
    hits = asked = 0
    for endpoint, spec in specs.items():
        part = part_of(run, endpoint, pace=pace)
        times, engine = part.simulated(spec)
        ttft_s[part.numbers], e2e_s[part.numbers] = times.ttft_s, times.e2e_s
        gauges = engine.gauges()
        hits += gauges.prefix_hit_tokens
        asked += gauges.prefix_query_tokens
    return Times(ttft_s, e2e_s), hits / max(asked, 1)


def tpot_s(times: Times, output_tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Time per token after the first."""
    return (times.e2e_s - times.ttft_s) / np.maximum(output_tokens - 1, 1)


def loss(parts: Sequence[Part], spec: EngineSpec) -> float:
    """Mean of |ln simulated/real| of TTFT plus that of TPOT; an outlier counts as any other."""
    errors = []
    for part in parts:
        got, _ = part.simulated(spec)
        errors.append(
            np.abs(np.log(got.ttft_s / part.times.ttft_s))
            + np.abs(
                np.log(tpot_s(got, part.output_tokens) / tpot_s(part.times, part.output_tokens))
            )
        )
    return float(np.concatenate(errors).mean())


def fit(parts: Sequence[Part], start: EngineSpec, evaluations: int = EVALUATIONS) -> EngineSpec:
    """The coefficients with the least loss on *parts*, from *start* (Nelder and Mead 1965).

    Searched in logarithms, so that none turns negative and all scales are alike.
    """
    at = np.log([value_of(start, name) for name in FITTED])
    found = minimize(
        lambda x: loss(parts, with_values(start, dict(zip(FITTED, np.exp(x), strict=True)))),
        at,
        method="Nelder-Mead",
        options={
            "maxfev": evaluations,
            "xatol": 1e-3,
            "fatol": 1e-4,
            "adaptive": True,
            "initial_simplex": np.vstack([at, at + FIRST_STEP * np.eye(len(at))]),
        },
    )
    return with_values(start, dict(zip(FITTED, np.exp(found.x).tolist(), strict=True)))


def fit_host(part: Part, spec: EngineSpec) -> float:
    """How many times as long the host took in *part* as in what *spec* was fitted to."""
    found = minimize_scalar(
        lambda x: loss([part], slower_host(spec, math.exp(x))),
        bounds=(-1.0, 1.0),
        method="bounded",
        options={"xatol": 0.01},
    )
    return math.exp(found.x)


def pace_of(run: Run, specs: Mapping[str, EngineSpec], measured: NDArray[np.bool_]) -> float:
    """How many times as long the machine took in *run* as *specs* do, by the mean TPOT.

    No TTFT is looked at, so those of the run can still be predicted.

    Args:
        measured: which requests of *run* count.
    """

    def mean_tpot_s(times: Times) -> float:
        return float(tpot_s(times, run.output_tokens)[measured].mean())

    def excess_s(log_pace: float) -> float:
        return mean_tpot_s(simulate(run, specs, math.exp(log_pace))[0]) - mean_tpot_s(run.times)

    low, high = -math.log(SLOWEST), math.log(SLOWEST)
    if excess_s(high) <= 0:
        return SLOWEST
    if excess_s(low) >= 0:
        return 1 / SLOWEST
    return math.exp(brentq(excess_s, low, high, xtol=0.01))


def slower(spec: EngineSpec, factor: float) -> EngineSpec:
    """*spec* on a machine that takes *factor* times as long for everything."""
    return with_values(spec, {name: factor * value_of(spec, name) for name in FITTED})


def slower_host(spec: EngineSpec, factor: float) -> EngineSpec:
    """*spec* on a processor that takes *factor* times as long."""
    return with_values(spec, {name: factor * value_of(spec, name) for name in HOST})


def value_of(spec: EngineSpec, name: str) -> float:
    """One of FITTED."""
    return float(getattr(spec if name == "api_delay_s" else spec.cost, name))


def with_values(spec: EngineSpec, values: Mapping[str, float]) -> EngineSpec:
    """*spec* with some of FITTED replaced."""
    of_cost = {name: value for name, value in values.items() if name != "api_delay_s"}
    delay_s = values.get("api_delay_s", spec.api_delay_s)
    return replace(spec, cost=replace(spec.cost, **of_cost), api_delay_s=delay_s)


def first_guess(endpoint: str, alone: Mapping[str, Any], kv_tokens: int) -> EngineSpec:
    """An engine without noise, by what its real one took when idle.

    Args:
        alone: as `alone.py` measured it.
    """
    tokens = np.array([each["prompt_tokens"] for each in alone["prefill"]], dtype=float)
    idle_ms = np.array([1e3 * np.median(each["ttft_s"]) for each in alone["prefill"]])
    if len(tokens) == 1:
        tokens, idle_ms = np.append(0.0, tokens), np.append(0.0, idle_ms)
    degree = min(2, len(tokens) - 1)  # of two lengths nothing is said of pairs
    per_pair_ms, per_token_ms, _ = np.pad(np.polyfit(tokens, idle_ms, degree), (2 - degree, 0))
    # Each positive, whatever the noise: at least a tenth of what is seen overall.
    least_ms = 0.1 * (idle_ms[-1] - idle_ms[0]) / (tokens[-1] - tokens[0])
    per_token_ms = max(per_token_ms, least_ms)
    batches = {each["batch"]: 1e3 * float(np.median(each["tpot_s"])) for each in alone["decode"]}
    one, most = min(batches), max(batches)
    per_decode_ms = max((batches[most] - batches[one]) / (most - one), 0.01 * batches[one])
    cost = StepCost(
        floor_ms=batches[one],
        base_ms=0.2 * batches[one],
        per_token_ms=per_token_ms,
        # A prompt of n tokens has n²/2 pairs.
        per_mpair_ms=1e6 * max(2.0 * per_pair_ms, least_ms / tokens[-1]),
        per_decode_ms=per_decode_ms,
        per_kcontext_ms=0.1 * per_decode_ms,
    )
    return EngineSpec(
        endpoint,
        cost,
        kv_blocks=kv_tokens // 16,
        scheduled_ahead=True,
        api_delay_s=0.01,
        jitter_cv=0.0,
        stall_ratio=0.0,
    )
