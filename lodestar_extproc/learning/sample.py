"""TrainingSample: the features of a decision with what was then observed."""

from __future__ import annotations

from dataclasses import dataclass

from lodestar_extproc.decision import Decision
from lodestar_extproc.endpoint import FloatArray


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One label for one row of features.

    Attributes:
        features: [N_FEATURES], the very row the decision was made on.
        ttft_s: from the decision to the first token; a lower bound when *censored*.
        predicted_ttft_s: as predicted for the decision; None if nothing was.
        censored: the client left, or a deadline passed, before the first token came.
    """

    address: str
    accelerator: str
    features: FloatArray
    ttft_s: float
    at_s: float
    predicted_ttft_s: float | None = None
    censored: bool = False


def training_sample(
    decision: Decision, address: str, ttft_s: float, at_s: float, *, censored: bool = False
) -> TrainingSample | None:
    """The sample for *address* (who really served); None if it was no candidate."""
    index = decision.index_of(address)
    if index is None:
        return None
    predicted = decision.ranking.predicted_ttft_s
    return TrainingSample(
        address=address,
        accelerator=decision.candidates.snapshot.endpoints[index].accelerator,
        features=decision.features_of(index),
        ttft_s=ttft_s,
        at_s=at_s,
        predicted_ttft_s=None if predicted is None else float(predicted[index]),
        censored=censored,
    )
