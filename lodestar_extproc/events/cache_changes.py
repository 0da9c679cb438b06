"""CacheChanges: whether the sessions of one pool have outgrown all its caches; told at a change."""

from __future__ import annotations

from lodestar_extproc.events.change import ChangeKind
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.events.told_states import ToldStates
from lodestar_extproc.fleet.outgrown_caches import VAIN_RATIO
from lodestar_extproc.routing.pool_view import PoolView


class CacheChanges:
    """Tells *events* when they are, and when they fit again; that they fit at first is no news."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._told = ToldStates()
        self._told.begin("outgrown", state=False, at_s=0.0)

    def observe(self, view: PoolView, at_s: float) -> None:
        """Tell what is new in *view*."""
        if self._told.turns("outgrown", view.caches.outgrown, at_s):
            kind = ChangeKind.CACHES_OUTGROWN if view.caches.outgrown else ChangeKind.CACHES_SUFFICE
            self._events.tell(kind, words(view), pool=view.pool)


def words(view: PoolView) -> str:
    """What is outgrown in *view*, and what follows."""
    lost = f"{view.caches.lost_ratio:.0%} of what prompts ask for was cached and is lost"
    if not view.caches.outgrown:
        if view.caches.lost_ratio > VAIN_RATIO:
            return f"no prefix cache can be kept whole, still {lost}: all are treated alike"
        return "running sessions fit into the prefix caches again: all are treated alike"
    if view.settings.eviction_depth == 1.0:
        return f"running sessions have outgrown all prefix caches: {lost}; add endpoints or memory"
    return (
        f"running sessions have outgrown all prefix caches: {lost}; learned keeps most caches "
        f"whole and lets one overflow (eviction_depth); add endpoints or memory"
    )
