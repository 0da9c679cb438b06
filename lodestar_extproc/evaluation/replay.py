"""reports(): what journals say of each pool: decisions, what followed, how right predictions were.

All of it was observed; what other policies would have done is estimated in `replay_estimates.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from lodestar_extproc.evaluation.replay_estimates import Estimates, PolicyEstimate
from lodestar_extproc.evaluation.replay_reader import Replayed
from lodestar_extproc.learning.live_errors import LiveErrors


@dataclass(frozen=True, slots=True)
class Times:
    """Observed TTFT in seconds; NaN of nothing."""

    requests: int
    mean_s: float
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class PredictionError:
    """Of streamed answers served where they were sent.

    Attributes:
        mape_ratio, median_ape_ratio: mean and median of |observed - predicted| / observed.
        bias_ratio: mean observed over mean predicted.
        coverage_ratio: share inside the interval that was to hold 80 %, as it stood then.
    """

    requests: int
    mape_ratio: float
    median_ape_ratio: float
    bias_ratio: float
    coverage_ratio: float


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What was decided under one policy, and by whom in fact.

    Attributes:
        reasons: the same by reason, which says who decided.
    """

    policy: str
    decisions: int
    ttft: Times
    reasons: dict[str, Times]


@dataclass(frozen=True, slots=True)
class PoolReport:
    """One pool's part of the journals.

    Attributes:
        wall_s: of the first and the last decision, seconds since 1970.
        outcomes: requests by how they ended.
        unused: decisions that Envoy did not wait for.
        elsewhere: requests served by another endpoint than the one chosen.
        error: None without any prediction to judge.
    """

    pool: str
    decisions: int
    wall_s: tuple[float, float]
    outcomes: dict[str, int]
    unused: int
    elsewhere: int
    policies: list[PolicyReport]
    error: PredictionError | None
    estimates: list[PolicyEstimate]


def reports(decisions: Iterable[Replayed], seed: int = 0) -> list[PoolReport]:
    """A report for each pool.

    Args:
        decisions: in the order in which their requests ended.
        seed: of what heuristics leave to chance.
    """
    pools: dict[str, _Pool] = {}
    for each in decisions:
        if each.pool not in pools:
            pools[each.pool] = _Pool(each.pool, seed)
        pools[each.pool].add(each)
    return [pools[name].report() for name in sorted(pools)]


class _Pool:
    """Adds up one pool, a few numbers a decision."""

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._n = 0
        self._wall_s = (float("inf"), float("-inf"))
        self._outcomes: Counter[str] = Counter()
        self._unused = 0
        self._elsewhere = 0
        self._policies: dict[str, _Policy] = {}
        self._errors = _Errors()
        self._estimates = Estimates(seed)

    def add(self, each: Replayed) -> None:
        self._n += 1
        self._wall_s = min(self._wall_s[0], each.wall_s), max(self._wall_s[1], each.wall_s)
        self._outcomes[each.outcome] += 1
        if each.policy not in self._policies:
            self._policies[each.policy] = _Policy()
        self._policies[each.policy].add(each)
        if not each.used:
            self._unused += 1
        elif each.served not in (None, each.chosen):
            self._elsewhere += 1
        else:
            self._errors.add(each)
            self._estimates.add(each)

    def report(self) -> PoolReport:
        return PoolReport(
            pool=self._name,
            decisions=self._n,
            wall_s=self._wall_s,
            outcomes=dict(self._outcomes),
            unused=self._unused,
            elsewhere=self._elsewhere,
            policies=[p.report(name) for name, p in sorted(self._policies.items())],
            error=self._errors.report(),
            estimates=self._estimates.report(),
        )


@dataclass(slots=True)
class _Policy:
    decided: Counter[str] = field(default_factory=Counter)
    ttft_s: dict[str, list[float]] = field(default_factory=dict)

    def add(self, each: Replayed) -> None:
        self.decided[each.reason] += 1
        times = self.ttft_s.setdefault(each.reason, [])
        if each.ttft_s is not None and each.candidates.request.streaming:
            times.append(each.ttft_s)

    def report(self, name: str) -> PolicyReport:
        everything = [ttft_s for times in self.ttft_s.values() for ttft_s in times]
        return PolicyReport(
            policy=name,
            decisions=self.decided.total(),
            ttft=_times(self.decided.total(), everything),
            reasons={r: _times(n, self.ttft_s[r]) for r, n in self.decided.most_common()},
        )


def _times(requests: int, ttft_s: list[float]) -> Times:
    if not ttft_s:
        return Times(requests, *[float("nan")] * 3)
    p50_s, p99_s = np.percentile(ttft_s, [50, 99]).tolist()
    return Times(requests, float(np.mean(ttft_s)), p50_s, p99_s)


class _Errors:
    """Pairs of prediction and observation, and the interval that stood before each."""

    def __init__(self) -> None:
        self._live = LiveErrors()
        self._predicted_s: list[float] = []
        self._observed_s: list[float] = []
        self._covered = 0

    def add(self, each: Replayed) -> None:
        if each.predicted_ttft_s is None or each.ttft_s is None:
            return
        predicted_s, observed_s = float(each.predicted_ttft_s[each.chosen]), each.ttft_s
        if not each.candidates.request.streaming or not 0 < predicted_s < float("inf"):
            return
        endpoint = each.candidates.snapshot.endpoints[each.chosen]
        low, high = predicted_s * self._live.interval([endpoint])[0]
        self._covered += bool(low <= observed_s <= high)
        self._live.record(endpoint.address, predicted_s, observed_s)
        self._predicted_s.append(predicted_s)
        self._observed_s.append(observed_s)

    def report(self) -> PredictionError | None:
        n = len(self._observed_s)
        if n == 0:
            return None
        observed, predicted = np.array(self._observed_s), np.array(self._predicted_s)
        error = np.abs(observed - predicted) / observed
        return PredictionError(
            requests=n,
            mape_ratio=float(error.mean()),
            median_ape_ratio=float(np.median(error)),
            bias_ratio=float(observed.mean() / predicted.mean()),
            coverage_ratio=self._covered / n,
        )
