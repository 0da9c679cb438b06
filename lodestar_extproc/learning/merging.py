"""gather() and merge(): learners that learn from each other's samples, where sums suffice."""

from __future__ import annotations

from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.sample_sums import EndpointSums, SampleSums


def gather(learner: Learner, sums: SampleSums) -> None:
    """Have *learner* put what it learns from now on into *sums* too.

    Only the step-time model does: its equations are sums. The others' samples are their own.
    """
    if isinstance(learner.predictor, EnginePredictor):
        learner.predictor.sums = sums


def merge(learner: Learner, sums: EndpointSums) -> None:
    """Have *learner* learn what another gathered; what was learned from it counts as samples."""
    if isinstance(learner.predictor, EnginePredictor):
        learner.predictor.merge(sums)
        learner.trust.widen(sums.lowest, sums.highest)
        learner.count(sums.address, sums.n_samples)
