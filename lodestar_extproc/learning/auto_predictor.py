"""AutoPredictor: several models learn, and the one with the lowest live error predicts.

It knows models only as `Predictor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.features import FeatureMatrix
from lodestar_extproc.learning.predictor import MIN_TTFT_S, Estimate, Predictor
from lodestar_extproc.learning.sample import TrainingSample

MEMORY_SAMPLES = 200
MAX_ERROR = 2.0
"""One absurd label must not decide."""
MIN_SAMPLES = 100
"""A model is not chosen with fewer, and none is left sooner after it was chosen."""
MARGIN = 0.1
"""Share of the error by which another must be better: two that are equal don't take turns."""


@dataclass(slots=True)
class _Rival:
    """One model and its live error: the mean |log(observed/predicted)|, fading."""

    model: Predictor
    error: float = 0.0
    n_scored: int = 0

    def score(self, sample: TrainingSample, observed_s: float) -> None:
        """Compare what the model says of a sample it has not learned."""
        if not self.model.is_trained:
            return
        log_ratio = math.log(observed_s / max(MIN_TTFT_S, self.model.ttft_s(sample)))
        self.n_scored += 1
        self.error += (min(abs(log_ratio), MAX_ERROR) - self.error) / self.memory

    @property
    def memory(self) -> int:
        """Samples that the error is the mean of."""
        return min(self.n_scored, MEMORY_SAMPLES)

    def state(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"model": self.model.state(), "error": self.error, "n_scored": self.n_scored}

    @classmethod
    def from_state(cls, model: Predictor, state: dict[str, Any]) -> _Rival:
        """Undo `state` on a new *model*."""
        model.restore(state["model"])
        return cls(model, float(state["error"]), int(state["n_scored"]))


class AutoPredictor(Predictor):
    """Predicts by the model that was least wrong lately, at first by the first.

    Each says what it expects of a sample before all learn from it (prequential, Dawid 1984).
    Errors are those of the logarithm: an engine taken to be twice as fast as it is counts as much
    as one taken to be twice as slow. Another model takes over with an error `MARGIN` lower, and
    stays for `MIN_SAMPLES` at least.

    A prediction costs what the chosen one's does; a sample, what all of them take together.

    Args:
        new_models: make the models; each has a name of its own.
    """

    name = "auto"

    def __init__(self, new_models: Sequence[Callable[[], Predictor]]) -> None:
        self._new_models = tuple(new_models)
        self._rivals = [_Rival(new_predictor()) for new_predictor in self._new_models]
        self._chosen = self._rivals[0]
        self._n_since_choice = 0

    @property
    def is_trained(self) -> bool:
        """Whether the chosen one is."""
        return self._chosen.model.is_trained

    @property
    def predicting(self) -> str:
        """The chosen one's name."""
        return self._chosen.model.predicting

    @property
    def extrapolation_ratio(self) -> float:  # type: ignore[override]
        """The chosen one's."""
        return self._chosen.model.extrapolation_ratio

    @property
    def errors(self) -> dict[str, float]:
        """Live error by model, as a ratio; 0 before the first sample."""
        return {rival.model.name: math.expm1(rival.error) for rival in self._rivals}

    def predict(self, features: FeatureMatrix, endpoints: Sequence[Endpoint]) -> Estimate:
        """By the chosen one."""
        return self._chosen.model.predict(features, endpoints)

    def ttft_s(self, sample: TrainingSample) -> float:
        """The chosen one's."""
        return self._chosen.model.ttft_s(sample)

    def prefill_s_per_ktoken(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """Always the first one's, [n]: features depend on it, and must not change their meaning."""
        return self._rivals[0].model.prefill_s_per_ktoken(endpoints)

    def learn(self, sample: TrainingSample) -> None:
        """Score every model, choose, then teach them all."""
        for rival in self._rivals:
            rival.score(sample, sample.ttft_s)
        self._n_since_choice += 1
        self._choose()
        for rival in self._rivals:
            rival.model.learn(sample)

    def discount(self, address: str) -> None:
        """In every model."""
        for rival in self._rivals:
            rival.model.discount(address)

    def forget(self, address: str) -> None:
        """In every model."""
        for rival in self._rivals:
            rival.model.forget(address)

    def close(self) -> None:
        """Every model."""
        for rival in self._rivals:
            rival.model.close()

    def state(self) -> dict[str, Any]:
        """Every model's, its error, and which is chosen."""
        return {
            "rivals": {rival.model.name: rival.state() for rival in self._rivals},
            "chosen": self._chosen.model.name,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over every model's, and the choice."""
        models = [new_predictor() for new_predictor in self._new_models]
        rivals = [_Rival.from_state(model, state["rivals"][model.name]) for model in models]
        chosen = {rival.model.name: rival for rival in rivals}[state["chosen"]]
        self.close()
        self._rivals, self._chosen, self._n_since_choice = rivals, chosen, 0

    def _choose(self) -> None:
        known = [rival for rival in self._rivals if rival.n_scored >= MIN_SAMPLES]
        if not known or self._n_since_choice < MIN_SAMPLES:
            return
        best = min(known, key=lambda rival: rival.error)
        if best.error < (1.0 - MARGIN) * self._chosen.error:
            self._chosen, self._n_since_choice = best, 0
