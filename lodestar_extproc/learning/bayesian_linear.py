"""BayesianLinearPredictor: River's Bayesian linear regression on the engine features.

One regressor for each endpoint, for each accelerator and for the fleet. Their coefficients are read
out, so that predicting all candidates costs one product of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import river
from river.linear_model import BayesianLinearRegression

from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.features import ENGINE_FEATURES, N_ENGINE, FeatureMatrix
from lodestar_extproc.learning.endpoint_table import EndpointTable
from lodestar_extproc.learning.engine_predictor import DISCOUNT, PRIOR
from lodestar_extproc.learning.kept_count import kept_count
from lodestar_extproc.learning.labels import believed_s, precision
from lodestar_extproc.learning.predictor import Estimate, Predictor
from lodestar_extproc.learning.sample import TrainingSample

# Precision of the prior and of the noise, as River calls them: the first values tried, not tuned.
ALPHA, BETA = 1.0, 20.0
# Memories of 1000 and of 2000 samples, not tuned either.
ENDPOINT_SMOOTHING, SHARED_SMOOTHING = 0.999, 0.9995
MIN_OWN_SAMPLES = 50
"""With fewer an endpoint has its accelerator's coefficients, and an accelerator the fleet's.

Six for each coefficient.
"""
ANCHOR_EVERY_SAMPLES = 200
"""Each feature's prior is learned again as often: in a memory of 1000 samples it counts as five."""
FIRST_ANCHOR = 10.0
"""Makes the prior outweigh River's own, which is 0, before the first sample."""
LARGEST = 1e100  # in a state: products of larger numbers would overflow
MIN_PREDICTION_S = 0.01  # coefficients may be negative, times may not; no engine is as quick
MIN_SERVICE_S = 0.001  # as above
GATEWAY_S = 0.03
"""Part of every TTFT that is nobody's work."""
PREFILL_S_PER_KTOKEN = 0.1
"""A fixed guess: single coefficients mean little here, as the features are collinear."""


class BayesianLinearPredictor(Predictor):
    """TTFT by ridge regression with forgetting; rows scaled so that errors count relatively.

    About 20 µs a prediction for 8 endpoints, 300 µs a sample: River inverts a matrix each time.
    """

    name = "bayesian_linear"
    extrapolation_ratio = 3.0

    def __init__(self) -> None:
        self._fleet = _Regression(SHARED_SMOOTHING)
        self._accelerators: dict[str, _Regression] = {}
        self._own: dict[str, _Regression] = {}
        self._theta = EndpointTable(self._fleet.coefficients())

    @property
    def is_trained(self) -> bool:
        """Whether anything was learned."""
        return self._fleet.n_samples > 0

    def predict(self, features: FeatureMatrix, endpoints: Sequence[Endpoint]) -> Estimate:
        """With θ of each endpoint; what the request adds is the prediction less that without it."""
        theta = self._theta.gather(endpoints)
        ttft_s = np.maximum(MIN_PREDICTION_S, np.einsum("ij,ij->i", theta, features.engine))
        service_s = np.maximum(MIN_SERVICE_S, np.einsum("ij,ij->i", theta, features.marginal))
        backlog_s = np.maximum(0.0, ttft_s - service_s - GATEWAY_S)
        s_per_ktoken = np.einsum("ij,ij->i", theta, features.per_ktoken)
        return Estimate(ttft_s, service_s, backlog_s, np.maximum(MIN_SERVICE_S, s_per_ktoken))

    def ttft_s(self, sample: TrainingSample) -> float:
        """As predicted for its row: p = θ·f."""
        theta = self._theta.row(sample.address, sample.accelerator)
        return max(MIN_PREDICTION_S, float(theta @ sample.features[:N_ENGINE]))

    def prefill_s_per_ktoken(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """A constant, [n]."""
        return np.full(len(endpoints), PREFILL_S_PER_KTOKEN)

    def learn(self, sample: TrainingSample) -> None:
        """Update the fleet's, the accelerator's and the endpoint's regression."""
        observed_s = sample.ttft_s
        predicted_s = believed_s(sample) or self.ttft_s(sample)
        scale = math.sqrt(precision(max(predicted_s, MIN_PREDICTION_S), observed_s, 0.05**2))
        shared = self._accelerators.setdefault(sample.accelerator, _Regression(SHARED_SMOOTHING))
        own = self._own.setdefault(sample.address, _Regression(ENDPOINT_SMOOTHING))
        for regression in (self._fleet, shared, own):
            regression.learn(sample.features[:N_ENGINE] * scale, observed_s * scale)
        self._theta.set_default(self._fleet.coefficients())
        if shared.n_samples >= MIN_OWN_SAMPLES:
            self._theta.set_accelerator(sample.accelerator, shared.coefficients())
        if own.n_samples >= MIN_OWN_SAMPLES:
            self._theta.set(sample.address, own.coefficients())

    def discount(self, address: str) -> None:
        """Let the endpoint's past count a fiftieth."""
        if address in self._own:
            self._own[address].discount(DISCOUNT)

    def forget(self, address: str) -> None:
        """Back to the accelerator's coefficients."""
        self._own.pop(address, None)
        self._theta.drop(address)

    def close(self) -> None:
        """Nothing is held outside."""

    def state(self) -> dict[str, Any]:
        """Every regression; accelerators by the name that checkpoints have."""
        return {
            "river": river.__version__,
            "fleet": self._fleet.state(),
            "pools": {name: each.state() for name, each in self._accelerators.items()},
            "endpoints": {address: own.state() for address, own in self._own.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over every regression."""
        if state["river"] != river.__version__:
            raise ValueError(f"written by River {state['river']}, this is {river.__version__}")
        fleet = _Regression(SHARED_SMOOTHING, state["fleet"])
        accelerators = {
            k: _Regression(SHARED_SMOOTHING, kept) for k, kept in state["pools"].items()
        }
        own = {a: _Regression(ENDPOINT_SMOOTHING, kept) for a, kept in state["endpoints"].items()}
        theta = EndpointTable(fleet.coefficients())
        for name, regression in accelerators.items():
            if regression.n_samples >= MIN_OWN_SAMPLES:
                theta.set_accelerator(name, regression.coefficients())
        for address, regression in own.items():
            if regression.n_samples >= MIN_OWN_SAMPLES:
                theta.set(address, regression.coefficients())
        self._fleet, self._accelerators, self._own, self._theta = fleet, accelerators, own, theta


class _Regression:
    """River's regression on rows of engine features, kept from forgetting its prior.

    With smoothing River's prior fades for ever, and the precision of a feature that traffic never
    excites would reach 0: so the prior is learned again, a feature at a time, as if it were a
    sample.
    """

    def __init__(self, smoothing: float, state: dict[str, Any] | None = None) -> None:
        self._river = BayesianLinearRegression(alpha=ALPHA, beta=BETA, smoothing=smoothing)
        self.n_samples = 0
        for feature in range(N_ENGINE):
            self._anchor(feature, FIRST_ANCHOR)
        if state is not None:
            self.n_samples = kept_count(state["n_samples"])
            self._restore(state["river"])

    def learn(self, row: FloatArray, target: float) -> None:
        """One weighted sample."""
        self._river.learn_one(dict(zip(ENGINE_FEATURES, row.tolist(), strict=True)), target)
        self.n_samples += 1
        if self.n_samples % ANCHOR_EVERY_SAMPLES < N_ENGINE:
            self._anchor(self.n_samples % ANCHOR_EVERY_SAMPLES, 1.0)

    def discount(self, factor: float) -> None:
        """Let everything learned so far count *factor* times as much."""
        held = vars(self._river)
        # Precision and natural mean scaled alike: the same mean, held with less certainty.
        held["_ss_arr"] = held["_ss_arr"] * factor
        held["_eta_arr"] = held["_eta_arr"] * factor
        held["_ss_inv_arr"] = held["_ss_inv_arr"] / factor

    def coefficients(self) -> FloatArray:
        """The posterior mean, [N_ENGINE]: the regression's answers to the unit vectors."""
        return np.array([self._river.predict_one({name: 1.0}) for name in ENGINE_FEATURES])

    def state(self) -> dict[str, Any]:
        """As plain JSON types."""
        kept = {
            k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self._river).items()
        }
        return {"n_samples": self.n_samples, "river": kept}

    def _restore(self, attributes: dict[str, Any]) -> None:
        """Take over precision, covariance and natural mean: River has no format of its own."""
        held = vars(self._river)
        for name in ("_ss_arr", "_ss_inv_arr", "_eta_arr"):
            array = np.array(attributes[name], np.float64).reshape(held[name].shape)
            if not (np.abs(array) < LARGEST).all():
                raise ValueError(f"{name} holds what no samples can lead to")
            # In the order River has it: sums of the same numbers are then the same.
            held[name] = np.asfortranarray(array) if held[name].flags.f_contiguous else array
        np.linalg.inv(held["_ss_arr"])  # raises a ValueError where no later sample could be learned

    def _anchor(self, feature: int, size: float) -> None:
        """Learn the prior of one feature."""
        self._river.learn_one({ENGINE_FEATURES[feature]: size}, size * PRIOR[feature])
