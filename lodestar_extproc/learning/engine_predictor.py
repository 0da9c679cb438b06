"""EnginePredictor: TTFT as a step-time model of the engine, its coefficients learned per endpoint.

It knows the eight engine features and nothing of policies. An endpoint's coefficients are shrunk
to those of its accelerator, and a new accelerator starts at those of the fleet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lodestar_extproc.endpoint import ZERO, Endpoint, FloatArray
from lodestar_extproc.features import ENGINE_FEATURES, N_ENGINE, Feature, FeatureMatrix
from lodestar_extproc.learning.endpoint_table import EndpointTable
from lodestar_extproc.learning.labels import believed_s, precision
from lodestar_extproc.learning.nonnegative_rls import NonNegativeRLS, absorb_in_all, share_of
from lodestar_extproc.learning.predictor import MIN_TTFT_S, Estimate, Predictor
from lodestar_extproc.learning.sample import TrainingSample
from lodestar_extproc.learning.sample_sums import EndpointSums, SampleSums

# θ and its standard deviation before any sample, by engine feature: seconds for a request, for
# 1000 tokens, for a step ... of an 8B model on an accelerator of some 100 TFLOPS.
PRIOR = (0.03, 0.10, 0.02, 0.0, 0.02, 0.03, 0.02, 0.0)
PRIOR_SCALE = (0.05, 0.1, 0.03, 0.05, 0.05, 0.1, 0.05, 0.05)

# Chosen on simulated runs of seeds that no result is reported on. For an endpoint 0.99 gave the
# same mean TTFT within 1 %, 0.9995 one 2 % higher.
ENDPOINT_FORGETTING = 0.998  # a memory of 500 samples
SHARED_FORGETTING = 0.9995  # of an accelerator and of the fleet, 2000 samples
SHRINKAGE_SAMPLES = 5.0  # 1 and 30 gave the same TTFT within 1 %
# Few are enough, as each begins at the last solution; the fleet's θ only starts others off.
FLEET_SWEEPS, ACCELERATOR_SWEEPS, ENDPOINT_SWEEPS = 1, 3, 4

MIN_S_PER_KTOKEN = 0.001  # a million tokens a second, faster than any accelerator: keeps 1/c finite
_LEAST = np.array([[-np.inf], [MIN_S_PER_KTOKEN], [MIN_TTFT_S]])  # of x, c and p
MIN_PRECISE_S = 0.02  # the weight of a sample grows no further below it
WEIGHT_SCALE = 1e-3  # makes the weight of a short TTFT about 1
FEW_SAMPLES = 20.0
"""Below this an endpoint's coefficients follow its accelerator's even without samples of its own.

Four times `SHRINKAGE_SAMPLES`: with more, its own samples outweigh the pull.
"""
DISCOUNT = 0.02
"""What is left of an endpoint's past after a drift: of a memory of 500 samples, ten."""


@dataclass(frozen=True, slots=True)
class _EndpointRegression:
    """One endpoint's own regressor, shrunk to that of its accelerator."""

    accelerator: str
    regressor: NonNegativeRLS


class EnginePredictor(Predictor):
    """One River regressor a fleet, an accelerator and an endpoint: `NonNegativeRLS`.

    Errors are relative and their influence is bounded (see `labels.precision`).
    p = θ·f, and from the same θ the request's own service time and the backlog ahead of it.
    About 20 µs a prediction for 8 endpoints, 80 µs a sample.

    Args:
        prior: [N_ENGINE], θ before any sample.
        prior_scale: [N_ENGINE], its standard deviations.

    Attributes:
        sums: gather what is learned, for others to merge; None where nobody wants them.
    """

    name = "engine"
    extrapolation_ratio = 10.0  # the law is physics, so it holds far beyond what was seen

    def __init__(
        self, prior: Sequence[float] = PRIOR, prior_scale: Sequence[float] = PRIOR_SCALE
    ) -> None:
        self.sums: SampleSums | None = None
        self._prior = prior
        self._prior_scale = dict(zip(ENGINE_FEATURES, prior_scale, strict=True))
        self._fleet = self._new_shared(prior, FLEET_SWEEPS)
        self._accelerators: dict[str, NonNegativeRLS] = {}
        self._endpoints: dict[str, _EndpointRegression] = {}
        self._with_few_samples: dict[str, deque[str]] = {}
        self._theta = EndpointTable(self._fleet.theta)

    @property
    def is_trained(self) -> bool:
        """Whether anything was learned."""
        return self._fleet.n_samples > 0

    @property
    def fleet(self) -> NonNegativeRLS:
        """Learns from every sample."""
        return self._fleet

    @property
    def accelerators(self) -> Mapping[str, NonNegativeRLS]:
        """By accelerator: learns from the samples of its endpoints."""
        return self._accelerators

    @property
    def endpoints(self) -> Mapping[str, NonNegativeRLS]:
        """By address: learns from the endpoint's own samples."""
        return {address: own.regressor for address, own in self._endpoints.items()}

    def predict(self, features: FeatureMatrix, endpoints: Sequence[Endpoint]) -> Estimate:
        """With θ of each endpoint: p = θ·f, x = θ·(own part of f), v = p - x - θ₀, c."""
        theta = self._theta.gather(endpoints)
        # One product for all three: each call costs more than its arithmetic.
        products = np.vecdot(features.engine_parts, theta)
        service_s, s_per_ktoken, ttft_s = np.maximum(products, _LEAST)
        backlog_s = np.maximum(ZERO, ttft_s - service_s - theta[:, Feature.CONSTANT])
        return Estimate(ttft_s, service_s, backlog_s, s_per_ktoken)

    def law(self, endpoints: Sequence[Endpoint]) -> FloatArray | None:
        """See `Predictor`; None for a subclass that predicts otherwise."""
        if type(self).predict is not EnginePredictor.predict:
            return None
        return self._theta.gather(endpoints)

    def ttft_s(self, sample: TrainingSample) -> float:
        """As predicted for its row: p = θ·f."""
        theta = self._theta.row(sample.address, sample.accelerator)
        return max(MIN_TTFT_S, float(theta @ sample.features[:N_ENGINE]))

    def prefill_s_per_ktoken(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """θ of the work, [n]."""
        rate: FloatArray = self._theta.gather(endpoints)[:, Feature.WORK_KTOKENS]
        return rate

    def coefficients(self, endpoint: Endpoint) -> FloatArray:
        """θ in use for *endpoint*, [N_ENGINE]."""
        return self._theta.row(endpoint.address, endpoint.accelerator).copy()

    def learn(self, sample: TrainingSample) -> None:
        """Teach the fleet's, the accelerator's and the endpoint's regressor.

        The same as `learn_one` of the three in this order, with the engine features by name and the
        weight as here; but the sample's share of the equations is computed once for all.
        """
        observed_s = sample.ttft_s
        row = sample.features[:N_ENGINE]
        predicted_s = believed_s(sample) or self.ttft_s(sample)
        weight = precision(max(predicted_s, MIN_PRECISE_S), observed_s, WEIGHT_SCALE)
        if self.sums is not None:
            share = share_of(row, observed_s, weight)
            self.sums.add(sample, share[:, :-1], share[:, -1])
        accelerator = self._accelerator(sample.accelerator)
        own = self._own(sample.address, sample.accelerator)
        absorb_in_all((self._fleet, accelerator, own), row, observed_s, weight)
        self._solve(sample.address, sample.accelerator)

    def merge(self, sums: EndpointSums) -> None:
        """Learn what another learned from its samples of one endpoint, all at once."""
        accelerator = self._accelerator(sums.accelerator)
        own = self._own(sums.address, sums.accelerator)
        for regressor in (self._fleet, accelerator, own):
            regressor.absorb_many(sums.gram, sums.moment, sums.n_samples)
        self._solve(sums.address, sums.accelerator)

    def _solve(self, address: str, accelerator: str) -> None:
        """Take up what the three regressors of *address* have absorbed."""
        shared, own = self._accelerators[accelerator], self._endpoints[address].regressor
        for regressor in (self._fleet, shared, own):
            regressor.solve()
        self._theta.set_default(self._fleet.theta)
        self._theta.set_accelerator(accelerator, shared.theta)
        self._theta.set(address, own.theta)
        self._follow_accelerator(address, accelerator)

    def discount(self, address: str) -> None:
        """Keep a fiftieth of what the endpoint's own samples said."""
        if address in self._endpoints:
            self._endpoints[address].regressor.discount(DISCOUNT)

    def forget(self, address: str) -> None:
        """Back to the accelerator's coefficients."""
        own = self._endpoints.pop(address, None)
        if own is not None:
            self._theta.drop(address)
            if address in self._with_few_samples[own.accelerator]:
                self._with_few_samples[own.accelerator].remove(address)

    def _new_shared(self, prior: Sequence[float], sweeps: int) -> NonNegativeRLS:
        return NonNegativeRLS(
            forgetting=SHARED_FORGETTING,
            prior=dict(zip(ENGINE_FEATURES, prior, strict=True)),
            prior_scale=self._prior_scale,
            sweeps=sweeps,
        )

    def _accelerator(self, name: str) -> NonNegativeRLS:
        """Its regressor; a new one's prior is what the fleet has learned so far."""
        if name not in self._accelerators:
            prior = self._fleet.theta.tolist()
            self._accelerators[name] = self._new_shared(prior, ACCELERATOR_SWEEPS)
            self._with_few_samples[name] = deque()
        return self._accelerators[name]

    def _own(self, address: str, accelerator: str) -> NonNegativeRLS:
        """The endpoint's regressor; a new one starts at the accelerator's coefficients."""
        known = self._endpoints.get(address)
        if known is not None and known.accelerator == accelerator:
            return known.regressor
        self.forget(address)
        own = _new_own(self._accelerators[accelerator])
        self._endpoints[address] = _EndpointRegression(accelerator, own)
        self._with_few_samples[accelerator].append(address)
        return own

    def _follow_accelerator(self, learned: str, accelerator: str) -> None:
        """Solve one of the endpoints with few samples again: its accelerator's θ has moved."""
        addresses = self._with_few_samples[accelerator]
        if not addresses:
            return
        address = addresses.popleft()
        regressor = self._endpoints[address].regressor
        if regressor.n_samples < FEW_SAMPLES:
            addresses.append(address)
        if address != learned:
            regressor.solve()
            self._theta.set(address, regressor.theta)

    def close(self) -> None:
        """Nothing is held outside."""

    def state(self) -> dict[str, Any]:
        """What every regressor has learned; accelerators by the name that checkpoints have."""
        return {
            "fleet": self._fleet.state(),
            "pools": {name: each.state() for name, each in self._accelerators.items()},
            "endpoints": {
                address: {"accelerator": own.accelerator, "equations": own.regressor.state()}
                for address, own in self._endpoints.items()
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what every regressor had learned."""
        fleet = self._new_shared(self._prior, FLEET_SWEEPS)
        fleet.restore(state["fleet"])
        theta = EndpointTable(fleet.theta)
        accelerators, endpoints = {}, {}
        for name, kept in state["pools"].items():
            accelerators[name] = self._new_shared(fleet.theta.tolist(), ACCELERATOR_SWEEPS)
            accelerators[name].restore(kept)
            theta.set_accelerator(name, accelerators[name].theta)
        few: dict[str, deque[str]] = {name: deque() for name in accelerators}
        for address, kept in state["endpoints"].items():
            name = kept["accelerator"]
            own = _EndpointRegression(name, _new_own(accelerators[name]))
            own.regressor.restore(kept["equations"])
            theta.set(address, own.regressor.theta)
            endpoints[address] = own
            few[name].append(address)
        self._fleet, self._accelerators, self._endpoints = fleet, accelerators, endpoints
        self._with_few_samples, self._theta = few, theta


def _new_own(accelerator: NonNegativeRLS) -> NonNegativeRLS:
    """Nothing but the pull to its accelerator, until it has samples of its own."""
    return NonNegativeRLS(
        forgetting=ENDPOINT_FORGETTING,
        sweeps=ENDPOINT_SWEEPS,
        shrink_to=accelerator,
        shrinkage_samples=SHRINKAGE_SAMPLES,
    )
