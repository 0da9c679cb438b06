"""Estimates: what other policies might have given, from decisions that were made without them.

These are no measurements. Each decision is judged alone, in the state that the journal's own policy
had brought about: what another policy would have made of the queues and caches is not in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from lodestar_extproc.evaluation.replay_reader import Replayed
from lodestar_extproc.policies.heuristics import HEURISTICS

MIN_AGREED = 30  # below this a mean has no useful interval
SUPPORT_ERRORS = 3.0
"""A mean weight that is more standard errors than this from 1 says that the journal's policy could
often not have chosen as the other would have."""


@dataclass(frozen=True, slots=True)
class PolicyEstimate:
    """One heuristic against the journal, over streamed requests with a first token.

    Attributes:
        decisions: that it ranked, of two candidates at least.
        agreement_ratio: of those, the share where it chose as was chosen.
        agreed_ttft_s: mean observed TTFT of these; a selection, not an estimate. NaN of none.
        weight: mean of 1/propensity where it agreed, else 0. It is 1 but for chance if the
            journal's policy could always have chosen so; only then is the next one an estimate.
        weighted_s: mean TTFT by inverse propensity, self-normalised, and its standard error; None
            where the weight, or too few to agree, forbid it.
        direct_s: mean of the TTFTs predicted for its choices, and the standard error; None
            without predictions. It believes the model.
        direct_ratio: that over the mean predicted for the choices that were made.
    """

    policy: str
    decisions: int
    agreement_ratio: float
    agreed_ttft_s: float
    weight: float
    weighted_s: tuple[float, float] | None
    direct_s: tuple[float, float] | None
    direct_ratio: float | None


@dataclass(slots=True)
class _Tally:
    """One heuristic's numbers, one of each a decision."""

    weights: list[float] = field(default_factory=list)
    predicted_s: list[float] = field(default_factory=list)


class Estimates:
    """Asks every heuristic, with its own code, what it would have chosen.

    One that keeps a state, as round_robin does, sees the requests of the journal in their order,
    each as sent to where it would have gone.

    Args:
        seed: of ties and other chance.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self._policies = {name: make() for name, make in HEURISTICS.items()}
        self._tallies = {name: _Tally() for name in HEURISTICS}
        self._ttft_s: list[float] = []
        self._chosen_predicted_s: list[float] = []

    def add(self, each: Replayed) -> None:
        """Take in a decision that was used, and served where it was sent."""
        if each.ttft_s is None or not each.candidates.request.streaming or len(each.candidates) < 2:
            return
        self._ttft_s.append(each.ttft_s)
        predicted = each.predicted_ttft_s
        if predicted is not None:
            self._chosen_predicted_s.append(float(predicted[each.chosen]))
        for name, policy in self._policies.items():
            ranking = policy.rank(each.candidates, self._rng)
            policy.dispatched(each.candidates, ranking)
            best = ranking.order[0]
            tally = self._tallies[name]
            tally.weights.append(1.0 / each.propensity if best == each.chosen else 0.0)
            if predicted is not None:
                tally.predicted_s.append(float(predicted[best]))

    def report(self) -> list[PolicyEstimate]:
        """One a heuristic; none without decisions."""
        if not self._ttft_s:
            return []
        return [self._estimate(name, tally) for name, tally in self._tallies.items()]

    def _estimate(self, name: str, tally: _Tally) -> PolicyEstimate:
        ttft_s, weights = np.array(self._ttft_s), np.array(tally.weights)
        agreed, weight = weights > 0, float(weights.mean())
        off_by = SUPPORT_ERRORS * float(weights.std()) / np.sqrt(len(weights))
        supported = abs(weight - 1.0) <= off_by and agreed.sum() >= MIN_AGREED
        direct_s = _mean(np.array(tally.predicted_s)) if tally.predicted_s else None
        made_s = float(np.mean(self._chosen_predicted_s)) if direct_s else None
        return PolicyEstimate(
            policy=name,
            decisions=len(ttft_s),
            agreement_ratio=float(agreed.mean()),
            agreed_ttft_s=float(ttft_s[agreed].mean()) if agreed.any() else float("nan"),
            weight=weight,
            weighted_s=_weighted_mean(ttft_s, weights) if supported else None,
            direct_s=direct_s,
            direct_ratio=direct_s[0] / made_s if direct_s and made_s else None,
        )


def _mean(values: np.ndarray) -> tuple[float, float]:
    """And its standard error."""
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """And its standard error by the delta method (Owen, Monte Carlo theory, section 9.2)."""
    mean = float(np.average(values, weights=weights))
    error = np.sqrt(np.sum((weights * (values - mean)) ** 2)) / weights.sum()
    return mean, float(error)
