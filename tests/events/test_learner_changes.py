"""Who decides, and why, is told when it changes."""

from __future__ import annotations

import dataclasses

from lodestar_extproc.decision import Reason
from lodestar_extproc.events.change import ChangeKind
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.events.learner_changes import LearnerChanges, words
from metrics_world import World


def a_view(reason: Reason, error: float | None, trivial: float | None = None, **settings):
    view = World(policy="learned", **settings).view()
    learner = dataclasses.replace(
        view.learner, reason=reason, error_ratio=error, trivial_error_ratio=trivial, n_samples=120
    )
    return dataclasses.replace(view, learner=learner)


def test_cold_then_trusted_then_lost_are_three_events():
    log = EventLog()
    changes = LearnerChanges(log)
    for at_s, reason in enumerate([Reason.BURN_IN, Reason.BURN_IN, Reason.MODEL, Reason.MODEL,
                                   Reason.UNTRUSTED]):  # fmt: skip
        changes.observe(a_view(reason, 0.7), float(at_s))

    kinds = [event.kind for event in reversed(log.last(9))]
    assert kinds == [ChangeKind.COLD, ChangeKind.TRUST_GAINED, ChangeKind.TRUST_LOST]


def test_a_pool_that_asks_no_predictor_hears_nothing_of_it():
    log = EventLog()
    LearnerChanges(log).observe(World(policy="random").view(), 0.0)

    assert log.last(9) == []


def test_the_words_name_who_decides_and_the_figure_that_settled_it():
    cold = words(a_view(Reason.BURN_IN, None, burn_in_samples=100))
    high = words(a_view(Reason.UNTRUSTED, 0.62, trust_max_error_ratio=0.5))
    useless = words(a_view(Reason.UNTRUSTED, 0.4, 0.3, trust_max_error_ratio=0.5))
    gained = words(a_view(Reason.MODEL, 0.18))

    assert "decides until it has learned from 100 first tokens" in cold
    assert "a median error of 62% is above trust_max_error_ratio, 50%" in high
    assert "worse than that of always predicting the median TTFT, 30%" in useless
    assert gained == "the predictor decides from now on: a median error of 18% after 120 samples"
    fallback = World().view().settings.fallback_policy
    assert all(fallback in text for text in (cold, high, useless))
