"""LearnerStatus: what a pool has learned, in numbers, for those who watch."""

from __future__ import annotations

from dataclasses import dataclass

from lodestar_extproc.decision import Reason


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """How well one endpoint is known.

    Attributes:
        error_ratio: median error of its last predictions, over the smaller of both times;
            None before the first.
        doubtful: the predictor may not choose it for now.
    """

    address: str
    n_samples: int
    error_ratio: float | None
    doubtful: bool
    drifts: int


@dataclass(frozen=True, slots=True)
class LearnerStatus:
    """What a pool has learned, in numbers.

    Attributes:
        predictor: as it was asked for.
        predicting: the one that predicts now; another where the predictor is one that chooses.
        reason: MODEL, or why the predictor decides nothing now.
        error_ratio, trivial_error_ratio: median error of the last predictions (as above), and of
            always predicting the median TTFT; None before the first.
        coverage_ratio: share of TTFTs inside their interval, 0.8 if it is honest.
        rejected: samples that were no measurement.
        uninformative: requests given up before the TTFT predicted for them.
    """

    predictor: str
    predicting: str
    reason: Reason
    n_samples: int
    rejected: int
    uninformative: int
    drifts: int
    error_ratio: float | None
    trivial_error_ratio: float | None
    coverage_ratio: float | None
    endpoints: tuple[EndpointStatus, ...]
