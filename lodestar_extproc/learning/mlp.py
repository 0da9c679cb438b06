"""MLPPredictor: the paper's multilayer perceptron on its load features, the baseline to beat.

It collects samples, has a network trained on them elsewhere, and predicts by the last finished one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.features import N_FEATURES, FeatureMatrix
from lodestar_extproc.learning.background import BackgroundTraining, training_process
from lodestar_extproc.learning.mlp_training import KIND, STORED_WIDTH, TTFT_S, train
from lodestar_extproc.learning.perceptron import (
    HIT_RATIO,
    INPUTS,
    PROMPT_TOKENS,
    Perceptron,
    inputs,
)
from lodestar_extproc.learning.predictor import Estimate, Predictor
from lodestar_extproc.learning.replay_buffer import ReplayBuffer
from lodestar_extproc.learning.sample import TrainingSample

UNTRAINED_S = 1.0  # the same for all: nothing is known
MIN_SERVICE_S = 0.001  # keeps 1/c finite
GATEWAY_S = 0.03
"""Part of every TTFT that is nobody's work."""
PREFILL_S_PER_KTOKEN = 0.1
"""A fixed guess: the network has no such rate."""
MIN_TOKENS = 32.0  # two KV blocks: fewer say nothing of the rate


class MLPPredictor(Predictor):
    """Three layers of 128 ReLU, squared error on seconds, trained anew every so many samples.

    About 60 µs a prediction for 8 endpoints, 10 µs a sample; a training takes seconds, elsewhere.

    Args:
        rng: seeds the trainings and the replay.
        start_executor: where to train; called at the first training and after a crash.
    """

    name = "mlp"
    extrapolation_ratio = 0.0
    """The paper's guard: any feature outside its learned range, and the fallback decides."""

    def __init__(
        self,
        rng: random.Random,
        live: LiveSettings,
        *,
        start_executor: Callable[[], Executor] = training_process,
    ) -> None:
        self._rng = rng
        self._live = live
        self._training: BackgroundTraining[Perceptron] = BackgroundTraining(start_executor)
        self._network: Perceptron | None = None
        self._buffer = ReplayBuffer(STORED_WIDTH, rng)
        self._kinds: dict[str, int] = {}
        self._n_new = 0

    @property
    def failed_trainings(self) -> int:
        """That ended without a network; the last good one stays in use."""
        return self._training.failures

    @property
    def is_trained(self) -> bool:
        """Whether there is a network."""
        return self._network is not None

    def predict(self, features: FeatureMatrix, endpoints: Sequence[Endpoint]) -> Estimate:
        """One pass for the request, and for the same with all but one token cached.

        The difference is what the request itself adds.
        """
        n, network = len(endpoints), self._network
        if network is None:
            ones = np.ones(n)
            return Estimate(UNTRAINED_S * ones, 0 * ones, 0 * ones, PREFILL_S_PER_KTOKEN * ones)
        rows = self._inputs(features.values, [e.accelerator for e in endpoints], network)
        cached = rows.copy()
        cached[:, HIT_RATIO] = 1.0 - 1.0 / np.maximum(rows[:, PROMPT_TOKENS], 1.0)
        both = network.ttft_s(np.concatenate([rows, cached]))
        service_s = np.maximum(MIN_SERVICE_S, both[:n] - both[n:])
        backlog_s = np.maximum(0.0, both[n:] - GATEWAY_S)
        s_per_ktoken = 1e3 * service_s / np.maximum(MIN_TOKENS, features.uncached_tokens)
        return Estimate(both[:n], service_s, backlog_s, np.maximum(MIN_SERVICE_S, s_per_ktoken))

    def ttft_s(self, sample: TrainingSample) -> float:
        """What the network in use says."""
        if self._network is None:
            return UNTRAINED_S
        rows = self._inputs(sample.features[None, :], [sample.accelerator], self._network)
        return float(self._network.ttft_s(rows)[0])

    def prefill_s_per_ktoken(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """A constant, [n]."""
        return np.full(len(endpoints), PREFILL_S_PER_KTOKEN)

    def learn(self, sample: TrainingSample) -> None:
        """Keep the sample; train when enough have come and no training is under way."""
        self._adopt_finished()
        row = np.empty(STORED_WIDTH, np.float32)
        row[:N_FEATURES] = sample.features
        row[KIND] = self._kinds.setdefault(sample.accelerator, len(self._kinds))
        row[TTFT_S] = sample.ttft_s
        self._buffer.add(row)
        self._n_new += 1
        enough = self._n_new >= self._live.current.mlp_retrain_samples
        if enough and not self._training.is_under_way:
            self._start_training()
            self._adopt_finished()

    def discount(self, address: str) -> None:
        """Nothing is kept by endpoint."""

    def forget(self, address: str) -> None:
        """Nothing is kept by endpoint."""

    def close(self) -> None:
        """Give up the process; a training that runs ends by itself."""
        self._training.close()

    def state(self) -> dict[str, Any]:
        """The network in use; samples are not kept."""
        network = None if self._network is None else self._network.state()
        return {"kinds": dict(self._kinds), "network": network}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the network."""
        kinds = {str(name): int(kind) for name, kind in state["kinds"].items()}
        if sorted(kinds.values()) != list(range(len(kinds))):
            raise ValueError("accelerators that are not numbered from 0 on")
        kept = state["network"]
        self._network = None if kept is None else Perceptron.from_state(kept)
        self._kinds = kinds

    def _inputs(
        self, features: FloatArray, accelerators: Sequence[str], network: Perceptron
    ) -> NDArray[np.float32]:
        kinds = np.array([self._kinds.get(name, -1) for name in accelerators], np.intp)
        return inputs(features, kinds, len(network.mean) - len(INPUTS))

    def _start_training(self) -> None:
        self._n_new = 0
        seed = self._rng.getrandbits(31)
        self._training.start(train, self._buffer.rows(), len(self._kinds), seed)

    def _adopt_finished(self) -> None:
        """Swap in the network whose training has ended."""
        self._network = self._training.fetch() or self._network
