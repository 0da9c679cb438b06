"""ResidualPredictor: the engine predictor, and trees that learn what it leaves unexplained.

The trees count only as far as their earlier predictions have proved true.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.features import N_FEATURES, FeatureMatrix
from lodestar_extproc.learning.background import BackgroundTraining, training_process
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.forest import Forest
from lodestar_extproc.learning.forest_training import KIND, WIDTH, Grown, grow
from lodestar_extproc.learning.kept_count import kept_count
from lodestar_extproc.learning.predictor import MIN_TTFT_S, Estimate, Predictor
from lodestar_extproc.learning.sample import TrainingSample

MAX_RESIDUAL = 1.0
"""Of log(observed/predicted): a larger one is for the engine predictor to learn, or no time."""
BATCH_SAMPLES = 250  # a quarter of a minute of a busy fleet, a quarter of a second to learn
MAX_WAITING_SAMPLES = 2000
"""While a training takes longer than they come, the oldest are given up."""
SKILL_MEMORY_SAMPLES = 500  # two batches: the skill is that of the trees in use
CAUTION = 2.0
"""Standard errors by which the skill must exceed chance: the usual 95 %."""


class Skill:
    """The weight of a correction, by how far those before it agreed with what was observed.

    The weight that minimises the squared error, Σ predicted·observed / Σ predicted², less `CAUTION`
    standard errors of it; from 0 to 1, over an exponential memory. While there is nothing to
    correct it is 0.
    """

    def __init__(self, sums: Sequence[float] = (0.0, 0.0, 0.0)) -> None:
        self._agreement, self._variance, self._energy = sums
        self.weight = self._weight()

    def record(self, predicted: float, observed: float) -> None:
        """Take in one correction, predicted before what it should have been was *observed*."""
        keep = 1.0 - 1.0 / SKILL_MEMORY_SAMPLES
        self._agreement = keep * self._agreement + predicted * observed
        self._variance = keep * keep * self._variance + (predicted * observed) ** 2
        self._energy = keep * self._energy + predicted * predicted
        self.weight = self._weight()

    def state(self) -> list[float]:
        """The sums."""
        return [self._agreement, self._variance, self._energy]

    def _weight(self) -> float:
        certain = self._agreement - CAUTION * math.sqrt(self._variance)
        return min(1.0, certain / self._energy) if certain > 0 else 0.0


class ResidualPredictor(Predictor):
    """p = engine predictor's p · exp(weight · trees), the trees on the same features.

    River's adaptive random forest learns log(observed/predicted) in batches in a process of its
    own, and returns as arrays that replace the last ones. What a request adds and what lies ahead
    of it stay the engine predictor's.

    About 50 µs a prediction for 8 endpoints while the trees have skill, else the engine
    predictor's 12 µs; 140 µs a sample.

    Args:
        rng: seeds the trees.
        batch_samples: between two trainings.
        start_executor: where to train; called at the first training and after a crash.
    """

    name = "residual"
    extrapolation_ratio = EnginePredictor.extrapolation_ratio

    def __init__(
        self,
        rng: random.Random,
        *,
        batch_samples: int = BATCH_SAMPLES,
        start_executor: Callable[[], Executor] = training_process,
    ) -> None:
        self._engine = EnginePredictor()
        self._seed = rng.getrandbits(31)
        self._batch_samples = batch_samples
        self._training: BackgroundTraining[Grown] = BackgroundTraining(start_executor)
        self._waiting: deque[FloatArray] = deque(maxlen=MAX_WAITING_SAMPLES)
        self._ensemble: bytes | None = None
        self._forest: Forest | None = None
        self._skill = Skill()
        self._kinds: dict[str, int] = {}

    @property
    def is_trained(self) -> bool:
        """Whether the engine predictor is."""
        return self._engine.is_trained

    @property
    def weight(self) -> float:
        """What the trees count now, 0 to 1."""
        return self._skill.weight

    @property
    def _trees(self) -> Forest | None:
        """Those that count; None while none do."""
        return None if self.weight == 0 else self._forest

    def predict(self, features: FeatureMatrix, endpoints: Sequence[Endpoint]) -> Estimate:
        """The engine predictor's estimate, its TTFT corrected."""
        estimate = self._engine.predict(features, endpoints)
        if (trees := self._trees) is None:
            return estimate
        rows = np.empty((len(endpoints), WIDTH))
        rows[:, :N_FEATURES] = features.values
        rows[:, KIND] = [self._kinds.get(e.accelerator, -1) for e in endpoints]
        factors = np.exp(self.weight * trees.values(rows))
        ttft_s = np.maximum(MIN_TTFT_S, estimate.ttft_s * factors)
        return Estimate(ttft_s, estimate.service_s, estimate.backlog_s, estimate.s_per_ktoken)

    def law(self, endpoints: Sequence[Endpoint]) -> FloatArray | None:
        """The engine predictor's, while the trees count nothing."""
        return self._engine.law(endpoints) if self._trees is None else None

    def ttft_s(self, sample: TrainingSample) -> float:
        """The engine predictor's, corrected."""
        factor = (
            math.exp(self.weight * self._predicted_residual(sample)) if self.weight > 0 else 1.0
        )
        return max(MIN_TTFT_S, self._engine.ttft_s(sample) * factor)

    def prefill_s_per_ktoken(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """The engine predictor's, [n]."""
        return self._engine.prefill_s_per_ktoken(endpoints)

    def learn(self, sample: TrainingSample) -> None:
        """Score the trees, then teach the engine predictor now and the trees with the batch."""
        self._adopt_grown()
        observed_s = sample.ttft_s
        log_ratio = math.log(observed_s / self._engine.ttft_s(sample))
        residual = max(-MAX_RESIDUAL, min(MAX_RESIDUAL, log_ratio))
        if self._forest is not None:
            self._skill.record(self._predicted_residual(sample), residual)
        self._engine.learn(sample)
        self._kinds.setdefault(sample.accelerator, len(self._kinds))
        self._waiting.append(np.append(self._row(sample), residual))
        if len(self._waiting) >= self._batch_samples and not self._training.is_under_way:
            self._grow()
            self._adopt_grown()

    def discount(self, address: str) -> None:
        """The engine predictor's past counts less; the trees keep nothing by endpoint."""
        self._engine.discount(address)

    def forget(self, address: str) -> None:
        """The engine predictor's."""
        self._engine.forget(address)

    def close(self) -> None:
        """Give up the process."""
        self._training.close()

    def state(self) -> dict[str, Any]:
        """All but the trees' way to learn on: they are grown anew, and replaced when they are."""
        return {
            "engine": self._engine.state(),
            "kinds": dict(self._kinds),
            "forest": None if self._forest is None else self._forest.state(),
            "skill": self._skill.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the engine predictor, the trees and their skill."""
        kinds = {str(name): kept_count(kind) for name, kind in state["kinds"].items()}
        forest = None if state["forest"] is None else Forest.from_state(state["forest"], WIDTH)
        skill = Skill([float(total) for total in state["skill"]])
        self._engine.restore(state["engine"])
        self._kinds, self._forest, self._skill = kinds, forest, skill
        self._ensemble = None
        self._waiting.clear()

    def _row(self, sample: TrainingSample) -> FloatArray:
        return np.append(sample.features, self._kinds.get(sample.accelerator, -1))

    def _predicted_residual(self, sample: TrainingSample) -> float:
        """The trees' log(observed/predicted) for a row; 0 before there are any."""
        if self._forest is None:
            return 0.0
        return float(self._forest.values(self._row(sample)[None, :])[0])

    def _grow(self) -> None:
        batch = np.array(self._waiting)
        self._waiting.clear()
        self._training.start(grow, self._ensemble, batch, self._seed)

    def _adopt_grown(self) -> None:
        """Swap in the trees whose training has ended."""
        grown = self._training.fetch()
        if grown is not None:
            self._ensemble, self._forest = grown.ensemble, grown.forest
