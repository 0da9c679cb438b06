"""Predictor: what predicts the time to first token. Estimate: what it answers.

It knows no policy: it says how long a request would wait, not where it should go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.features import FeatureMatrix
from lodestar_extproc.learning.sample import TrainingSample

MIN_TTFT_S = 0.005
"""No prediction is below this: no engine answers sooner."""


class Estimate(NamedTuple):
    """One request's time on every candidate; each array is float64 of shape [n_endpoints].

    Attributes:
        ttft_s: p of docs/learning.md, from dispatch to the first token, at least `MIN_TTFT_S`.
        service_s: x, seconds of work this request adds to the endpoint.
        backlog_s: v, seconds of work ahead of it.
        s_per_ktoken: c, seconds that 1000 more uncached tokens would take; above 0.
    """

    ttft_s: FloatArray
    service_s: FloatArray
    backlog_s: FloatArray
    s_per_ktoken: FloatArray


class Predictor(Protocol):
    """Learns TTFT one sample at a time and predicts it for all candidates in one call.

    One thread, no locks. Predicting changes nothing; no label, however wrong, may make a
    prediction infinite, NaN or negative.

    Attributes:
        name: as the setting `predictor` names it.
        extrapolation_ratio: how many learned ranges beyond what was learned a feature may lie
            before the predictions mean nothing.
    """

    name: str
    extrapolation_ratio: float

    @property
    def is_trained(self) -> bool:
        """Whether predictions rest on samples at all."""
        ...

    @property
    def predicting(self) -> str:
        """The name of the one that predicts now: another's, for a predictor that chooses one."""
        return self.name

    def predict(self, features: FeatureMatrix, endpoints: Sequence[Endpoint]) -> Estimate:
        """The request of *features* on every endpoint."""
        ...

    def law(self, endpoints: Sequence[Endpoint]) -> FloatArray | None:  # noqa: ARG002
        """θ of each endpoint, [n, N_ENGINE], where `predict` is `EnginePredictor`'s by it now.

        None for another: the compiled kernel does not know it.
        """
        return None

    def ttft_s(self, sample: TrainingSample) -> float:
        """What is predicted now for the row of *sample*."""
        ...

    def learn(self, sample: TrainingSample) -> None:
        """Take in one first token; `labels.checked` says which may be given."""
        ...

    def prefill_s_per_ktoken(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """Seconds each endpoint takes for 1000 prompt tokens, [n]: how fast its queue moves."""
        ...

    def discount(self, address: str) -> None:
        """The endpoint has changed: let its past count less."""
        ...

    def forget(self, address: str) -> None:
        """The endpoint has left: drop what was learned of it alone."""
        ...

    def state(self) -> dict[str, Any]:
        """All that predictions depend on, as plain JSON types."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave; changes nothing if it raises.

        Raises:
            LookupError, TypeError, ValueError, ArithmeticError, AttributeError: it is not such a
                state.
        """
        ...

    def close(self) -> None:
        """Give back what is held outside this process's memory."""
        ...
