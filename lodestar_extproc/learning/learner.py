"""Learner: owns all that a pool has learned: predictor, live errors, drift, trust, penalties.

It predicts and says how far to believe it; it does not choose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lodestar_extproc.decision import Reason
from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.features import FeatureMatrix
from lodestar_extproc.learning.drift_detector import DriftDetector
from lodestar_extproc.learning.endpoint_table import EndpointTable
from lodestar_extproc.learning.generation_times import GenerationTimes
from lodestar_extproc.learning.kept_count import kept_count
from lodestar_extproc.learning.labels import believed_s, checked
from lodestar_extproc.learning.learner_status import EndpointStatus, LearnerStatus
from lodestar_extproc.learning.live_errors import LiveErrors
from lodestar_extproc.learning.penalties import Penalties
from lodestar_extproc.learning.predictor import Estimate, Predictor
from lodestar_extproc.learning.sample import TrainingSample
from lodestar_extproc.learning.trust import Trust

NO_PREDICTION_S = 1e9
"""Stands for a prediction that was no number: as wrong as can be."""
UNREADABLE = (LookupError, TypeError, ArithmeticError, AttributeError)
"""What reading a state that is not ours can raise, beside ValueError."""


class _LittleKnown(NamedTuple):
    """Which of *endpoints* had fewer than *n_samples*, after so many were learned of all."""

    endpoints: Sequence[Endpoint]
    n_samples: float
    n_learned: int
    indices: list[int]


class Learner:
    """Learns from samples, predicts for candidates, keeps account of how well.

    Args:
        predictor: predicts TTFT.
        trust: says when the predictor may decide.

    Attributes:
        learns: False for one that takes no samples, so that none need be made.
    """

    learns = True

    def __init__(self, predictor: Predictor, trust: Trust) -> None:
        self._predictor = predictor
        self._trust = trust
        self._errors = LiveErrors()
        self._drift = DriftDetector()
        self._penalties = Penalties()
        self._generation = GenerationTimes()
        self._n_samples: dict[str, int] = {}
        self._samples = EndpointTable(np.zeros(1))  # the same, for decisions
        self._known: _LittleKnown | None = None
        self._n_learned = 0
        self._rejected = 0
        self._uninformative = 0

    @property
    def predictor(self) -> Predictor:
        """What predicts."""
        return self._predictor

    @property
    def trust(self) -> Trust:
        """What says when the predictor may decide."""
        return self._trust

    # -- what a decision asks --------------------------------------------------------------------

    @property
    def is_trained(self) -> bool:
        """Whether predictions rest on samples at all."""
        return self._predictor.is_trained

    @property
    def predicting(self) -> str:
        """The name of the one that predicts now."""
        return self._predictor.predicting

    def prefill_s_per_ktoken(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """Seconds each endpoint takes for 1000 prompt tokens, [n]."""
        return self._predictor.prefill_s_per_ktoken(endpoints)

    def predict(self, features: FeatureMatrix, endpoints: Sequence[Endpoint]) -> Estimate:
        """TTFT on every endpoint, and what else a choice is weighed by."""
        return self._predictor.predict(features, endpoints)

    def interval_s(
        self, ttft_s: FloatArray, endpoints: Sequence[Endpoint]
    ) -> tuple[FloatArray, FloatArray]:
        """Between what 80 % of the TTFTs predicted as *ttft_s* should be, low and high, [n]."""
        low, high = self._errors.interval(endpoints).T
        return ttft_s * low, ttft_s * high

    def law(self, endpoints: Sequence[Endpoint]) -> FloatArray | None:
        """See `Predictor`."""
        return self._predictor.law(endpoints)

    def limits(self) -> FloatArray | None:
        """See `Trust`: of what the predictor may be believed for."""
        return self._trust.limits(self._predictor.extrapolation_ratio)

    def is_in_range(self, row: FloatArray) -> bool:
        """Whether a row of features, [N_FEATURES], lies within `limits`."""
        return self._trust.is_in_range(row, self._predictor.extrapolation_ratio)

    def judge(self, address: str, *, is_in_range: bool) -> Reason:
        """MODEL if the predictor may choose the candidate at *address*, else why not."""
        n_samples = self._n_learned if self._predictor.is_trained else 0
        return self._trust.judge(address, is_in_range=is_in_range, n_samples=n_samples)

    def penalty_s(self, endpoints: Sequence[Endpoint], at_s: float) -> FloatArray | None:
        """What recent failures add to the cost of each endpoint, seconds, [n]; None for nothing."""
        return self._penalties.at(endpoints, at_s)

    def generation_s(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """Mean seconds from first token to end on such accelerators, [n]; 0 while unknown."""
        return self._generation.mean_s(endpoints)

    def n_samples(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """First tokens learned from each endpoint, [n]."""
        return self._samples.gather(endpoints)[:, 0]

    def with_fewer(self, endpoints: Sequence[Endpoint], n_samples: float) -> list[int]:
        """Indices of the endpoints from which fewer first tokens than *n_samples* were learned."""
        known = self._known
        if known is None or known.endpoints is not endpoints or known.n_samples != n_samples:
            known = None
        elif known.indices and known.n_learned != self._n_learned:
            known = None  # where there were none, there are none
        if known is None:
            indices = np.flatnonzero(self.n_samples(endpoints) < n_samples).tolist()
            known = self._known = _LittleKnown(endpoints, n_samples, self._n_learned, indices)
        return known.indices

    # -- what happened ---------------------------------------------------------------------------

    def learn(self, sample: TrainingSample) -> None:
        """Score the prediction made for *sample*, then learn from it.

        A censored sample says only that TTFT exceeds its time: news if the prediction was lower.
        """
        label = checked(sample)
        if label is None:
            self._rejected += 1
            return
        observed_s, predicted_s = label.ttft_s, self._predicted_s(sample)
        if sample.censored and not observed_s > predicted_s:
            self._uninformative += 1
            return
        if self._predictor.is_trained and self._trust.weighs(self._n_learned):
            self._score(sample.address, predicted_s, observed_s)
        self._predictor.learn(label)
        self._trust.learned(label)
        self.count(sample.address, 1)

    def count(self, address: str, n_samples: int) -> None:
        """The predictor has learned so many samples of *address*."""
        n_of_endpoint = self._n_samples[address] = self._n_samples.get(address, 0) + n_samples
        self._samples.set(address, n_of_endpoint)
        self._n_learned += n_samples

    def generated(self, accelerator: str, generation_s: float) -> None:
        """A whole answer came from such an accelerator, so long after its first token."""
        self._generation.add(accelerator, generation_s)

    def penalise(self, address: str, at_s: float) -> None:
        """The endpoint at *address* has failed a request."""
        self._penalties.add(address, at_s)

    def pardon(self, address: str) -> None:
        """One failure of *address* was none."""
        self._penalties.pardon(address)

    def left(self, address: str) -> None:
        """The endpoint is gone: drop what belongs to it alone."""
        self._n_samples.pop(address, None)
        self._samples.drop(address)
        self._known = None
        for owner in (self._predictor, self._errors, self._drift, self._trust, self._penalties):
            owner.forget(address)

    def keep(self, addresses: Iterable[str]) -> None:
        """The endpoints at others are gone: now, or before, and something was told of them since.

        Answers end after their endpoints have left, other replicas tell of theirs, and a
        checkpoint holds those of before.
        """
        for address in (self._n_samples.keys() | self._penalties.addresses) - set(addresses):
            self.left(address)

    def close(self) -> None:
        """End a training that is under way elsewhere."""
        self._predictor.close()

    # -- for those who watch ---------------------------------------------------------------------

    def status(self) -> LearnerStatus:
        """All of it in numbers."""
        endpoints = tuple(
            EndpointStatus(
                address,
                n_samples,
                self._errors.of(address).error_ratio,
                doubtful=self._trust.is_doubtful(address),
                drifts=self._drift.counts.get(address, 0),
            )
            for address, n_samples in self._n_samples.items()
        )
        return LearnerStatus(
            predictor=self._predictor.name,
            predicting=self._predictor.predicting,
            reason=self._trust.reason(self._n_learned if self._predictor.is_trained else 0),
            n_samples=self._n_learned,
            rejected=self._rejected,
            uninformative=self._uninformative,
            drifts=sum(self._drift.counts.values()),
            error_ratio=self._errors.fleet.error_ratio,
            trivial_error_ratio=self._errors.trivial.error_ratio,
            coverage_ratio=self._errors.coverage_ratio,
            endpoints=endpoints,
        )

    # -- across a restart ------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that is worth keeping, as plain JSON types; `model` is the predictor's."""
        return {
            "model": self._predictor.state(),
            "errors": self._errors.state(),
            "trust": self._trust.state(),
            "n_samples": dict(self._n_samples),
            "n_learned": self._n_learned,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave; changes nothing if it raises.

        Raises:
            ValueError: it is not such a state.
        """
        try:
            self._restore(state)
        except UNREADABLE as error:
            raise ValueError(f"not what a learner keeps: {error!r}") from error

    def _restore(self, state: dict[str, Any]) -> None:
        errors = LiveErrors.from_state(state["errors"])
        n_samples = {str(address): kept_count(n) for address, n in state["n_samples"].items()}
        n_learned = kept_count(state["n_learned"])
        learned_range = Trust.range_from(state["trust"])
        self._predictor.restore(state["model"])
        self._trust.adopt(learned_range)
        self._errors, self._n_samples, self._n_learned = errors, n_samples, n_learned
        self._samples = EndpointTable(np.zeros(1))
        for address, n in n_samples.items():
            self._samples.set(address, n)
        self._known = None

    def _predicted_s(self, sample: TrainingSample) -> float:
        """What the decision was made on, else what is predicted now; above 0, finite."""
        predicted_s = believed_s(sample) or self._predictor.ttft_s(sample)
        return predicted_s if 0 < predicted_s < math.inf else NO_PREDICTION_S

    def _score(self, address: str, predicted_s: float, observed_s: float) -> None:
        alone = self._trust.is_alone(address, self._errors)
        self._errors.record(address, predicted_s, observed_s, alone=alone)
        self._trust.update(address, self._errors)
        if self._drift.update(address, predicted_s, observed_s):
            self._predictor.discount(address)
