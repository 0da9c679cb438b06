"""AutoPredictor: several predictors learn, and the one with the lowest live error predicts.

It knows them only as `Predictor`. What the literature calls prediction with expert advice
(Cesa-Bianchi and Lugosi 2006): each of the predictors is an expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.features import FeatureMatrix
from lodestar_extproc.learning.kept_count import kept_count
from lodestar_extproc.learning.predictor import MIN_TTFT_S, Estimate, Predictor
from lodestar_extproc.learning.sample import TrainingSample

MEMORY_SAMPLES = 200  # longer than a burst, shorter than a shift of the load
MAX_ERROR = 2.0
"""Of |log(observed/predicted)|, a factor of 7: one absurd label must not decide."""
MIN_SAMPLES = 100
"""An expert is not chosen with fewer, and none is left sooner after it was chosen.

Half of the memory: sooner, the error would still be that of the time before.
"""
MARGIN = 0.1
"""Share of the error by which another must be better, so that two equal ones don't take turns.

A mean over 200 errors is itself uncertain by some 5 % of them.
"""


@dataclass(slots=True)
class _Expert:
    """One predictor and its live error: the mean |log(observed/predicted)|, fading."""

    predictor: Predictor
    error: float = 0.0
    n_scored: int = 0

    def score(self, sample: TrainingSample, observed_s: float) -> None:
        """Compare a sample with what is predicted for it before it is learned."""
        if not self.predictor.is_trained:
            return
        log_ratio = math.log(observed_s / max(MIN_TTFT_S, self.predictor.ttft_s(sample)))
        self.n_scored += 1
        self.error += (min(abs(log_ratio), MAX_ERROR) - self.error) / self.memory

    @property
    def memory(self) -> int:
        """Samples that the error is the mean of."""
        return min(self.n_scored, MEMORY_SAMPLES)

    def state(self) -> dict[str, Any]:
        """As plain JSON types; `model` is how checkpoints call the predictor."""
        return {"model": self.predictor.state(), "error": self.error, "n_scored": self.n_scored}

    @classmethod
    def from_state(cls, predictor: Predictor, state: dict[str, Any]) -> _Expert:
        """Undo `state` on a new *predictor*."""
        predictor.restore(state["model"])
        error, n_scored = float(state["error"]), kept_count(state["n_scored"])
        if not 0.0 <= error <= MAX_ERROR:
            raise ValueError(f"a mean error of {error}")
        return cls(predictor, error, n_scored)


class AutoPredictor(Predictor):
    """Predicts by the expert that was least wrong lately, at first by the first.

    Each says what it expects of a sample before all learn from it (prequential, Dawid 1984).
    Errors are those of the logarithm: an engine taken to be twice as fast as it is counts as much
    as one taken to be twice as slow. Another expert takes over with an error `MARGIN` lower, and
    stays for `MIN_SAMPLES` at least.

    A prediction costs what the chosen one's does; a sample, what all of them take together.

    Args:
        new_predictors: make the experts; each has a name of its own.
    """

    name = "auto"

    def __init__(self, new_predictors: Sequence[Callable[[], Predictor]]) -> None:
        self._new_predictors = tuple(new_predictors)
        self._experts = [_Expert(new_predictor()) for new_predictor in self._new_predictors]
        self._chosen = self._experts[0]
        self._n_since_choice = 0

    @property
    def is_trained(self) -> bool:
        """Whether the chosen one is."""
        return self._chosen.predictor.is_trained

    @property
    def predicting(self) -> str:
        """The chosen one's name."""
        return self._chosen.predictor.predicting

    @property
    def extrapolation_ratio(self) -> float:  # type: ignore[override]
        """The chosen one's."""
        return self._chosen.predictor.extrapolation_ratio

    @property
    def errors(self) -> dict[str, float]:
        """Live error by expert, as a ratio; 0 before the first sample."""
        return {expert.predictor.name: math.expm1(expert.error) for expert in self._experts}

    def predict(self, features: FeatureMatrix, endpoints: Sequence[Endpoint]) -> Estimate:
        """By the chosen one."""
        return self._chosen.predictor.predict(features, endpoints)

    def law(self, endpoints: Sequence[Endpoint]) -> FloatArray | None:
        """The chosen one's."""
        return self._chosen.predictor.law(endpoints)

    def ttft_s(self, sample: TrainingSample) -> float:
        """The chosen one's."""
        return self._chosen.predictor.ttft_s(sample)

    def prefill_s_per_ktoken(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """Always the first one's, [n]: features depend on it, and must not change their meaning."""
        return self._experts[0].predictor.prefill_s_per_ktoken(endpoints)

    def learn(self, sample: TrainingSample) -> None:
        """Score every expert, choose, then teach them all."""
        for expert in self._experts:
            expert.score(sample, sample.ttft_s)
        self._n_since_choice += 1
        self._choose()
        for expert in self._experts:
            expert.predictor.learn(sample)

    def discount(self, address: str) -> None:
        """In every expert."""
        for expert in self._experts:
            expert.predictor.discount(address)

    def forget(self, address: str) -> None:
        """In every expert."""
        for expert in self._experts:
            expert.predictor.forget(address)

    def close(self) -> None:
        """Every expert."""
        for expert in self._experts:
            expert.predictor.close()

    def state(self) -> dict[str, Any]:
        """Every expert's, its error, and which is chosen; `rivals` is how checkpoints call them."""
        return {
            "rivals": {expert.predictor.name: expert.state() for expert in self._experts},
            "chosen": self._chosen.predictor.name,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over every expert's, and the choice."""
        new = [new_predictor() for new_predictor in self._new_predictors]
        experts = [_Expert.from_state(each, state["rivals"][each.name]) for each in new]
        chosen = {expert.predictor.name: expert for expert in experts}[state["chosen"]]
        self.close()
        self._experts, self._chosen, self._n_since_choice = experts, chosen, 0

    def _choose(self) -> None:
        known = [expert for expert in self._experts if expert.n_scored >= MIN_SAMPLES]
        if not known or self._n_since_choice < MIN_SAMPLES:
            return
        best = min(known, key=lambda expert: expert.error)
        if best.error < (1.0 - MARGIN) * self._chosen.error:
            self._chosen, self._n_since_choice = best, 0
