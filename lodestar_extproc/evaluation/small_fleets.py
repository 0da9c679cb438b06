"""Fleets of four engines with small caches of one size, equal or unequal in speed.

The engines are those of `benchmarks/gpu/results/unequal/fitted.json`: vLLM 0.24 with a model of 2.8
billion parameters on 40, 25, 15 and 10 % of one H100, fitted to their real runs by `make
bench-calibrate`. There each held 48,000 tokens. Rounded to three digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from lodestar_extproc.simulator.accelerators import EngineSpec, StepCost
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS

UNEQUAL = tuple(
    EngineSpec(name, cost, kv_blocks=3_000, api_delay_s=api_delay_s, jitter_cv=0.0, stall_ratio=0.0)
    for name, api_delay_s, cost in (
        ("mps40", 0.0287, StepCost(11.5, 4.45, 0.0205, 1.87, 0.0507, 0.0109)),
        ("mps25", 0.0298, StepCost(10.4, 2.00, 0.0340, 2.48, 0.164, 0.0220)),
        ("mps15", 0.0283, StepCost(9.67, 1.60, 0.0602, 4.93, 0.281, 0.0265)),
        ("mps10", 0.0377, StepCost(11.0, 3.44, 0.0887, 6.67, 0.518, 0.0143)),
    )
)
EQUAL = (UNEQUAL[1],) * len(UNEQUAL)


def _holding(specs: tuple[EngineSpec, ...], kv_tokens: int) -> tuple[EngineSpec, ...]:
    return tuple(replace(spec, kv_blocks=kv_tokens // BLOCK_TOKENS) for spec in specs)


SMALL_FLEETS: Mapping[str, tuple[EngineSpec, ...]] = MappingProxyType(
    {
        f"{name}-{kv_tokens // 1000}k": _holding(specs, kv_tokens)
        for name, specs in (("unequal", UNEQUAL), ("equal", EQUAL))
        for kv_tokens in (96_000, 48_000)
    }
)
