"""Candidates and their snapshot: frozen, and what is costly to compute is computed once."""

from dataclasses import replace

import numpy as np

from builders import a_fleet, a_request, candidates_of
from lodestar_extproc.features import Feature


def test_features_and_the_context_of_decodes_are_computed_once():
    candidates = candidates_of(a_fleet())

    assert candidates.features is candidates.features
    snapshot = candidates.snapshot
    assert snapshot.decode_context_tokens is snapshot.decode_context_tokens


def test_what_differs_in_one_value_has_features_of_its_own():
    cold = candidates_of(a_fleet(3), a_request(prompt_tokens=1000.0))
    assert (cold.features.values[:, Feature.HIT_RATIO] == 0.0).all()

    warm = replace(cold, matched_tokens=np.array([0.0, 500.0, 0.0]))
    assert warm.features.values[:, Feature.HIT_RATIO].tolist() == [0.0, 0.5, 0.0]


def test_a_later_snapshot_has_a_context_of_its_own():
    fleet = a_fleet(1)
    request = a_request(prompt_tokens=1000.0)
    fleet.dispatch("a", request, "10.0.0.1:8000", uncached_tokens=1000.0, at_s=0.0)
    fleet.first_token("a", 1.0)
    at_first = fleet.snapshot(1.0)
    assert at_first.decode_context_tokens.tolist() == [1000.0]

    later = replace(at_first, at_s=2.0)
    assert later.decode_context_tokens[0] > 1000.0
