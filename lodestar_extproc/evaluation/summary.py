"""Summary: one policy's load, in the few numbers people compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lodestar_extproc.evaluation.load import LoadRecord


@dataclass(frozen=True, slots=True)
class Summary:
    """Times in seconds, NaN where nothing was served."""

    requests: int
    failed: int
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    tpot_mean_s: float
    e2e_mean_s: float


def summarise(records: Sequence[LoadRecord]) -> Summary:
    """The figures of *records*; failed requests count as failed and have no times."""
    served = [r for r in records if not r.failure]
    ttft_s = np.array([r.ttft_s for r in served if r.ttft_s is not None])
    e2e_s = np.array([r.e2e_s for r in served if r.e2e_s is not None])
    tpot_s = np.array([r.tpot_s for r in served if r.tpot_s is not None])
    p50_s, p90_s, p99_s = (_percentile(ttft_s, q) for q in (50, 90, 99))
    return Summary(
        requests=len(records),
        failed=len(records) - len(served),
        ttft_mean_s=_mean(ttft_s),
        ttft_p50_s=p50_s,
        ttft_p90_s=p90_s,
        ttft_p99_s=p99_s,
        tpot_mean_s=_mean(tpot_s),
        e2e_mean_s=_mean(e2e_s),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _percentile(values: np.ndarray, q: float) -> float:
    return float(np.percentile(values, q)) if len(values) else float("nan")
