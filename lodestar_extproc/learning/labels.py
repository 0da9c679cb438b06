"""Whether a sample's TTFT is a label, and how much it counts.

Both are shared by the predictors that learn one sample at a time.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lodestar_extproc.learning.sample import TrainingSample

MAX_LABEL_S = 600.0
"""A longer wait teaches nothing more."""
MAX_PREDICTION_S = 10 * MAX_LABEL_S
"""A longer one is no prediction."""
MAX_FEATURE = 1e9
"""No engine holds so many tokens: a larger value is a broken counter."""
# Standard deviation of a TTFT: at least, and as a share of it. Chosen as `precision` says.
_NOISE_S = 0.03
_NOISE_RATIO = 0.15


def checked(sample: TrainingSample) -> TrainingSample | None:
    """*sample*, its TTFT bounded; None for one that must not be learned.

    A negative or absent time is a broken clock, not a fast engine. A learner asks once, before
    anything learns, so that predictors need not.
    """
    if not (math.isfinite(sample.ttft_s) and sample.ttft_s > 0):
        return None
    if not np.maximum.reduce(np.abs(sample.features)) < MAX_FEATURE:  # NaN is below nothing
        return None
    return sample if sample.ttft_s <= MAX_LABEL_S else replace(sample, ttft_s=MAX_LABEL_S)


def believed_s(sample: TrainingSample) -> float | None:
    """The prediction the decision was made on; None where there was none, or none to use."""
    predicted_s = sample.predicted_ttft_s
    if predicted_s is None or not 0 < predicted_s <= MAX_PREDICTION_S:
        return None
    return predicted_s


def precision(predicted_s: float, observed_s: float, scale: float) -> float:
    """Weight of a sample: *scale* over the variance its TTFT should have.

    The standard deviation is taken as 30 ms and 15 % of the prediction (so errors count
    relatively), and an error beyond 0.6 p + 0.3 s counts as Huber's loss has it: its influence
    stays bounded. Constants chosen on tuning runs of a simulated fleet.
    """
    weight = scale / (_NOISE_S**2 + (_NOISE_RATIO * predicted_s) ** 2)
    error = abs(observed_s - predicted_s)
    bound = 0.6 * predicted_s + 0.3
    return weight * bound / error if error > bound else weight
