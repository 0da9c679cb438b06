"""The service that a decision adds to where it goes."""

from __future__ import annotations

from lodestar_extproc.decision import Decision
from lodestar_extproc.learning.learner import Learner


def service_s(decision: Decision, learner: Learner) -> float:
    """Seconds of service that the request adds where it goes, as the predictor has it.

    A body that could not be read is a prompt of its length of which nothing is cached, as it is
    in the counts of load: the engine refuses some such bodies at once, but computes most, for
    what is not read here is as a rule an API of its own.
    """
    candidates, predicted_s = decision.candidates, decision.ranking.service_s
    if predicted_s is None:  # a fixed rule decided, or nothing is learned: a guess, but its own
        endpoints = candidates.snapshot.endpoints
        predicted_s = learner.predict(candidates.features, endpoints).service_s
    return float(predicted_s[decision.chosen])
