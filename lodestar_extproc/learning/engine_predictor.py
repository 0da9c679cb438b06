"""EnginePredictor: TTFT as a step-time model of the engine, its coefficients learned per endpoint.

It knows the eight engine features and nothing of policies. An endpoint's coefficients are shrunk
to those of its accelerator type, and a new type starts at those of the fleet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.features import N_ENGINE, Feature, FeatureMatrix
from lodestar_extproc.learning.endpoint_table import EndpointTable
from lodestar_extproc.learning.labels import believed_s, precision
from lodestar_extproc.learning.nonnegative_rls import NormalEquations
from lodestar_extproc.learning.predictor import MIN_TTFT_S, Estimate, Predictor
from lodestar_extproc.learning.sample import TrainingSample

# θ and its standard deviation before any sample, by engine feature: seconds for a request, for
# 1000 tokens, for a step ... of an 8B model on an accelerator of some 100 TFLOPS.
PRIOR = (0.03, 0.10, 0.02, 0.0, 0.02, 0.03, 0.02, 0.0)
PRIOR_SCALE = (0.05, 0.1, 0.03, 0.05, 0.05, 0.1, 0.05, 0.05)

FORGETTING = 0.998
POOL_FORGETTING = 0.9995
SHRINKAGE_SAMPLES = 5.0
POOL_SWEEPS, ENDPOINT_SWEEPS = 3, 4
MIN_S_PER_KTOKEN = 0.001
FEW_SAMPLES = 20.0
"""Below this an endpoint's coefficients follow its type's even without samples of its own."""
DISCOUNT = 0.02
"""What is left of an endpoint's past after a drift: some ten samples."""


@dataclass(slots=True)
class _Fit:
    """One endpoint's own equations."""

    accelerator: str
    equations: NormalEquations


class EnginePredictor(Predictor):
    """Non-negative least squares on the engine features, relative errors, bounded influence.

    p = θ·x, and from the same θ the request's own service time and the backlog ahead of it.
    About 20 µs a prediction for 8 endpoints, 80 µs a sample.

    Args:
        prior: [N_ENGINE], θ before any sample.
        prior_scale: [N_ENGINE], its standard deviations.
    """

    name = "engine"
    extrapolation_ratio = 10.0

    def __init__(
        self, prior: Sequence[float] = PRIOR, prior_scale: Sequence[float] = PRIOR_SCALE
    ) -> None:
        self._prior_scale = np.array(prior_scale)
        self._fleet = NormalEquations(np.array(prior), self._prior_scale, POOL_FORGETTING)
        self._pools: dict[str, NormalEquations] = {}
        self._fits: dict[str, _Fit] = {}
        self._few: dict[str, deque[str]] = {}
        self._theta = EndpointTable(self._fleet.coefficients)

    @property
    def is_trained(self) -> bool:
        """Whether anything was learned."""
        return self._fleet.n_samples > 0

    def predict(self, features: FeatureMatrix, endpoints: Sequence[Endpoint]) -> Estimate:
        """With θ of each endpoint: p = θ·x, own x = θ·share, v = p - x - θ₀, c = θ·(1000 more)."""
        theta = self._theta.gather(endpoints)
        ttft_s = np.maximum(MIN_TTFT_S, np.einsum("ij,ij->i", theta, features.engine))
        service_s = np.einsum("ij,ij->i", theta, features.marginal)
        backlog_s = np.maximum(0.0, ttft_s - service_s - theta[:, Feature.CONSTANT])
        s_per_ktoken = np.einsum("ij,ij->i", theta, features.per_ktoken)
        return Estimate(ttft_s, service_s, backlog_s, np.maximum(MIN_S_PER_KTOKEN, s_per_ktoken))

    def ttft_s(self, sample: TrainingSample) -> float:
        """θ·x of the sample's row."""
        theta = self._theta.row(sample.address, sample.accelerator)
        return max(MIN_TTFT_S, float(theta @ sample.features[:N_ENGINE]))

    def prefill_s_per_ktoken(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """θ₁, [n]."""
        rate: FloatArray = self._theta.gather(endpoints)[:, Feature.WORK_KTOKENS]
        return rate

    def coefficients(self, endpoint: Endpoint) -> FloatArray:
        """θ in use for *endpoint*, [N_ENGINE]."""
        return self._theta.row(endpoint.address, endpoint.accelerator).copy()

    def learn(self, sample: TrainingSample) -> None:
        """Update the fleet's, the type's and the endpoint's equations, and solve them again."""
        observed_s = sample.ttft_s
        row = sample.features[:N_ENGINE]
        predicted_s = believed_s(sample) or self.ttft_s(sample)
        weighted = row * precision(max(predicted_s, 0.02), observed_s, 1e-3)
        gram, moment = np.multiply.outer(weighted, row), weighted * observed_s

        pool = self._pool(sample.accelerator)
        fit = self._fit(sample)
        for equations in (self._fleet, pool, fit.equations):
            equations.absorb(gram, moment)
        self._fleet.solve(1)
        self._theta.set_default(self._fleet.coefficients)
        pool.solve(POOL_SWEEPS)
        self._theta.set_accelerator(sample.accelerator, pool.coefficients)
        self._solve(sample.address)
        self._follow_pool(sample)

    def discount(self, address: str) -> None:
        """Keep a fiftieth of what the endpoint's own samples said."""
        if address in self._fits:
            self._fits[address].equations.discount(DISCOUNT)

    def forget(self, address: str) -> None:
        """Back to the type's coefficients."""
        fit = self._fits.pop(address, None)
        if fit is not None:
            self._theta.drop(address)
            if address in self._few[fit.accelerator]:
                self._few[fit.accelerator].remove(address)

    def _pool(self, accelerator: str) -> NormalEquations:
        """The type's equations; a new type's prior is what the fleet has learned so far."""
        if accelerator not in self._pools:
            prior = self._fleet.coefficients
            self._pools[accelerator] = NormalEquations(prior, self._prior_scale, POOL_FORGETTING)
            self._few[accelerator] = deque()
        return self._pools[accelerator]

    def _fit(self, sample: TrainingSample) -> _Fit:
        """The endpoint's equations; empty, and solved from the type's, for a new one."""
        known = self._fits.get(sample.address)
        if known is not None and known.accelerator == sample.accelerator:
            return known
        self.forget(sample.address)
        prior = self._pools[sample.accelerator].coefficients
        fit = _Fit(sample.accelerator, NormalEquations(prior, None, FORGETTING))
        self._fits[sample.address] = fit
        self._few[sample.accelerator].append(sample.address)
        return fit

    def _solve(self, address: str) -> None:
        fit = self._fits[address]
        pool = self._pools[fit.accelerator]
        strength = SHRINKAGE_SAMPLES * (pool.energy() + 1e-6)
        fit.equations.solve_towards(pool.coefficients, strength, ENDPOINT_SWEEPS)
        self._theta.set(address, fit.equations.coefficients)

    def _follow_pool(self, sample: TrainingSample) -> None:
        """Solve one of the type's endpoints that have few samples again: its pool has moved."""
        few = self._few[sample.accelerator]
        if not few:
            return
        address = few.popleft()
        if self._fits[address].equations.n_samples < FEW_SAMPLES:
            few.append(address)
        if address != sample.address:
            self._solve(address)

    def close(self) -> None:
        """Nothing is held outside."""

    def state(self) -> dict[str, Any]:
        """All equations."""
        return {
            "fleet": self._fleet.state(),
            "pools": {name: pool.state() for name, pool in self._pools.items()},
            "endpoints": {
                address: {"accelerator": fit.accelerator, "equations": fit.equations.state()}
                for address, fit in self._fits.items()
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over all equations."""
        fleet = NormalEquations.from_state(state["fleet"], POOL_FORGETTING)
        pools = {
            name: NormalEquations.from_state(pool, POOL_FORGETTING)
            for name, pool in state["pools"].items()
        }
        fits = {
            address: _Fit(
                fit["accelerator"], NormalEquations.from_state(fit["equations"], FORGETTING)
            )
            for address, fit in state["endpoints"].items()
        }
        theta = EndpointTable(fleet.coefficients)
        for name, pool in pools.items():
            theta.set_accelerator(name, pool.coefficients)
        few: dict[str, deque[str]] = {name: deque() for name in pools}
        for address, fit in fits.items():
            theta.set(address, fit.equations.coefficients)
            few[fit.accelerator].append(address)
        self._fleet, self._pools, self._fits, self._few, self._theta = (
            fleet,
            pools,
            fits,
            few,
            theta,
        )
