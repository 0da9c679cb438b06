"""Fleets of four engines with small caches of one size, equal or unequal in speed.

The engines are vLLM 0.24 with a model of 2.8 billion parameters on 40, 25, 15 and 10 % of one GPU,
fitted to their real runs by `make bench-calibrate`, rounded to three digits: those of
`benchmarks/gpu/results/unequal/fitted.json`, which ran eagerly, and of `graphs/fitted.json` beside
it, with CUDA graphs, whose steps take a third of the time. There each held 48,000 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from lodestar_extproc.simulator.accelerators import EngineSpec, StepCost
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS


def _engine(
    name: str, api_delay_s: float, cost: StepCost, *, scheduled_ahead: bool = False
) -> EngineSpec:
    return EngineSpec(
        name,
        cost,
        kv_blocks=3_000,
        scheduled_ahead=scheduled_ahead,
        api_delay_s=api_delay_s,
        jitter_cv=0.0,
        stall_ratio=0.0,
    )


UNEQUAL = (
    _engine("mps40", 0.0287, StepCost(11.5, 4.45, 0.0205, 1.87, 0.0507, 0.0109)),
    _engine("mps25", 0.0298, StepCost(10.4, 2.00, 0.0340, 2.48, 0.164, 0.0220)),
    _engine("mps15", 0.0283, StepCost(9.67, 1.60, 0.0602, 4.93, 0.281, 0.0265)),
    _engine("mps10", 0.0377, StepCost(11.0, 3.44, 0.0887, 6.67, 0.518, 0.0143)),
)
EQUAL = (UNEQUAL[1],) * len(UNEQUAL)
GRAPHS = tuple(
    _engine(name, api_delay_s, cost, scheduled_ahead=True)
    for name, api_delay_s, cost in (
        ("mps40", 0.0238, StepCost(3.99, 0.0514, 0.0250, 1.28, 0.0888, 0.0439)),
        ("mps25", 0.0222, StepCost(5.50, 0.564, 0.0365, 2.05, 0.155, 0.0238)),
        ("mps15", 0.0158, StepCost(6.83, 1.58, 0.0702, 1.26, 0.261, 0.0419)),
        ("mps10", 0.0236, StepCost(5.95, 0.460, 0.0984, 1.29, 0.401, 0.162)),
    )
)


def _holding(specs: tuple[EngineSpec, ...], kv_tokens: int) -> tuple[EngineSpec, ...]:
    return tuple(replace(spec, kv_blocks=kv_tokens // BLOCK_TOKENS) for spec in specs)


SMALL_FLEETS: Mapping[str, tuple[EngineSpec, ...]] = MappingProxyType(
    {
        f"{name}-{kv_tokens // 1000}k": _holding(specs, kv_tokens)
        for name, specs in (("unequal", UNEQUAL), ("equal", EQUAL), ("graphs", GRAPHS))
        for kv_tokens in (96_000, 48_000)
    }
)
