"""That sessions have outgrown all caches is told when it begins and when it ends."""

from __future__ import annotations

import dataclasses

import pytest

from lodestar_extproc.events.cache_changes import CacheChanges, words
from lodestar_extproc.events.change import ChangeKind, Severity
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.routing.pool_view import CachesView
from metrics_world import World


def a_view(*, outgrown: bool, **settings):
    view = World(policy="learned", **settings).view()
    return dataclasses.replace(view, caches=CachesView(0.57, outgrown))


def told(*states, **settings):
    log = EventLog()
    changes = CacheChanges(log)
    for at_s, outgrown in enumerate(states):
        changes.observe(a_view(outgrown=outgrown, **settings), float(at_s))
    return list(reversed(log.last(9)))


def test_a_pool_whose_caches_suffice_hears_nothing_of_it():
    assert told(False, False) == []


def test_outgrown_and_fitting_again_are_two_events():
    begun, ended = told(False, True, True, False)

    assert (begun.kind, begun.severity) == (ChangeKind.CACHES_OUTGROWN, Severity.WARNING)
    assert (ended.kind, ended.severity) == (ChangeKind.CACHES_SUFFICE, Severity.INFO)


@pytest.mark.parametrize(("depth", "spares"), [(20.0, True), (1.0, False)])
def test_the_words_say_how_much_is_lost_what_follows_and_what_helps(depth, spares):
    text = told(True, eviction_depth=depth)[0].text

    assert "57% of what prompts ask for was cached and is lost" in text
    assert ("keeps most caches whole and lets one overflow" in text) is spares
    assert text.endswith("add endpoints or memory")


def test_caches_that_cannot_be_kept_are_not_said_to_suffice():
    view = dataclasses.replace(a_view(outgrown=False), caches=CachesView(0.9, outgrown=False))

    assert words(view) == (
        "no prefix cache can be kept whole, still 90% of what prompts ask for was cached and is "
        "lost: all are treated alike"
    )
