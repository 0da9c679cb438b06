"""Figures: what one policy achieved in one run, in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lodestar_extproc.decision import Reason
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.evaluation.session_figures import recomputed_ratio, session_figures
from lodestar_extproc.simulator.record import RequestRecord

EARLY_WINDOW_S = 10.0
EARLY_WINDOWS = 12
BY_MODEL = (Reason.MODEL, Reason.EXPLORATION)


@dataclass(frozen=True, slots=True)
class Figures:
    """One run; times in seconds, ratios from 0 to 1, None where nothing of the kind was measured.

    Attributes:
        failed: requests that broke off, were refused, or were left by their client. One whose
            client left before the first token counts in the TTFTs with the time it had waited.
        slo_met_ratio: requests that met their bound on TTFT; None without one.
        hit_ratio: prompt tokens served from the engines' prefix caches.
        recomputed_ratio: prompt tokens computed again, though some engine had computed them before.
        moves_per_turn: turns that another endpoint served than the session's turn before; None
            without sessions.
        session_turn_s: a session's time from its first turn to its end, over its turns: what it
            takes to complete.
        model_share: decisions that the model made.
        error_mean_ratio, error_median_ratio: |observed - predicted| / observed TTFT.
        coverage_ratio: TTFTs inside their 80 % interval, over the last of the run.
        agreement_ratio: decisions that chose the endpoint of truly least TTFT.
        regret_s: TTFT lost against that endpoint, a decision.
        early_ttft_s: mean TTFT of those that arrived in each of the first windows of 10 s.
        early_requests: how many those were.
        simulated_per_s: requests simulated in a second of processor time.
    """

    requests: int
    failed: int
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    tpot_mean_s: float
    e2e_mean_s: float
    slo_met_ratio: float | None
    hit_ratio: float
    recomputed_ratio: float
    moves_per_turn: float | None
    session_turn_s: float | None
    busiest_ratio: float
    model_share: float | None
    error_mean_ratio: float | None
    error_median_ratio: float | None
    coverage_ratio: float | None
    agreement_ratio: float | None
    regret_s: float | None
    early_ttft_s: tuple[float | None, ...]
    early_requests: tuple[int, ...]
    simulated_per_s: float


@dataclass(frozen=True, slots=True)
class Quality:
    """What is known of a run besides its records.

    Attributes:
        ttft_slo_s: the bound on TTFT that was promised; None for none.
    """

    ttft_slo_s: float | None = None
    coverage_ratio: float | None = None
    agreement_ratio: float | None = None
    regret_s: float | None = None
    learns: bool = False
    cpu_s: float = math.nan


def measure(records: Sequence[RequestRecord], measured_from: float, quality: Quality) -> Figures:
    """Figures of the requests that arrived after the first *measured_from* of all, 0 to 1."""
    kept = records[int(measured_from * len(records)) :]
    waited_s = np.array([_waited_s(r) for r in kept])
    ttft_s = waited_s[np.isfinite(waited_s)]
    served = [r for r in kept if not r.failed]
    errors = _errors(kept)
    early_ttft_s, early_requests = _early(records)
    sessions = session_figures(kept)
    return Figures(
        requests=len(kept),
        failed=len(kept) - len(served),
        ttft_mean_s=float(ttft_s.mean()),
        ttft_p50_s=float(np.median(ttft_s)),
        ttft_p90_s=float(np.percentile(ttft_s, 90)),
        ttft_p99_s=float(np.percentile(ttft_s, 99)),
        tpot_mean_s=float(np.nanmean([r.tpot_s for r in served])),
        e2e_mean_s=float(np.mean([r.e2e_s for r in served])),
        slo_met_ratio=None
        if quality.ttft_slo_s is None
        else float(np.mean([r.ttft_s <= quality.ttft_slo_s for r in kept])),
        hit_ratio=sum(r.cached_tokens for r in served) / sum(r.prompt_tokens for r in served),
        recomputed_ratio=recomputed_ratio(records, len(records) - len(kept)),
        moves_per_turn=None if sessions is None else sessions.moves_per_turn,
        session_turn_s=None if sessions is None else sessions.turn_s,
        busiest_ratio=_busiest(kept),
        model_share=float(np.mean([r.reason in BY_MODEL for r in kept]))
        if quality.learns
        else None,
        error_mean_ratio=float(errors.mean()) if len(errors) else None,
        error_median_ratio=float(np.median(errors)) if len(errors) else None,
        coverage_ratio=quality.coverage_ratio,
        agreement_ratio=quality.agreement_ratio,
        regret_s=quality.regret_s,
        early_ttft_s=early_ttft_s,
        early_requests=early_requests,
        simulated_per_s=len(records) / quality.cpu_s,
    )


def _waited_s(record: RequestRecord) -> float:
    return record.e2e_s if math.isnan(record.ttft_s) else record.ttft_s


def _errors(records: Sequence[RequestRecord]) -> FloatArray:
    pairs = [(r.predicted_ttft_s, r.ttft_s) for r in records]
    predicted_s, ttft_s = np.array(pairs).reshape(-1, 2).T
    errors = np.abs(ttft_s - predicted_s) / ttft_s
    known: FloatArray = errors[np.isfinite(errors)]
    return known


def _busiest(records: Sequence[RequestRecord]) -> float:
    """Share of the requests that the busiest endpoint took."""
    taken = np.bincount([r.endpoint for r in records if r.endpoint >= 0])
    return float(taken.max() / len(records))


def _early(
    records: Sequence[RequestRecord],
) -> tuple[tuple[float | None, ...], tuple[int, ...]]:
    windows: list[list[float]] = [[] for _ in range(EARLY_WINDOWS)]
    for record in records:
        window = int(record.arrived_s / EARLY_WINDOW_S)
        if window >= EARLY_WINDOWS:
            break
        if math.isfinite(waited_s := _waited_s(record)):
            windows[window].append(waited_s)
    means = tuple(float(np.mean(w)) if w else None for w in windows)
    return means, tuple(len(w) for w in windows)
