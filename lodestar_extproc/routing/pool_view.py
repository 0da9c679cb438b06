"""PoolView: one pool at one instant, for those who watch: metrics, the dashboard, explanations.

It copies nothing of the past and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.endpoint import FleetSnapshot
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.fleet.kv_events.corrections import FollowingCounts
from lodestar_extproc.fleet.kv_events.followed_caches import FollowedCaches
from lodestar_extproc.fleet.kv_events.following import EventCounts
from lodestar_extproc.fleet.scraper import ScrapeCounts, Scraper
from lodestar_extproc.learning.learner_status import LearnerStatus
from lodestar_extproc.routing.router import Router


class CachesView(NamedTuple):
    """What all caches of a pool are to its sessions.

    Attributes:
        lost_ratio: of the tokens asked for lately, those that a cache had and has lost.
        outgrown: whether running sessions need more than all of them hold.
    """

    lost_ratio: float
    outgrown: bool


class KvEventsView(NamedTuple):
    """What one engine tells of its cache.

    Attributes:
        following: what was made of it.
        n_blocks: that it holds; None while its events are not followed.
    """

    events: EventCounts
    following: FollowingCounts
    n_blocks: int | None


@dataclass(frozen=True, slots=True)
class PoolView:
    """What one pool is and knows now.

    Attributes:
        snapshot: of all endpoints, routable or not.
        states: of the snapshot's endpoints, in its order.
        cache_belief_ratios: in that order, the share of what each cache should hold that is
            believed to be there.
        scrapes: by address; an endpoint that is not scraped has none.
        scrape_interval_s: between two reads of an engine's page, as it is now.
        open_decisions: whose answers have not ended.
        settings: in force.
        caches: as far as a policy that is asked counts it.
        share: how well it is shared with other replicas; empty where it is not to be.
        peers: other replicas that are heard of.
        kv_events: by address, of endpoints whose engines tell of their caches.
    """

    pool: str
    policy: str
    snapshot: FleetSnapshot
    states: tuple[HealthState, ...]
    cache_belief_ratios: tuple[float, ...]
    scrapes: Mapping[str, ScrapeCounts]
    scrape_interval_s: float
    learner: LearnerStatus
    open_decisions: int
    settings: PoolSettings
    caches: CachesView
    share: str = ""
    peers: int = 0
    kv_events: Mapping[str, KvEventsView] = field(default_factory=dict)


def view_pool(
    router: Router,
    scraper: Scraper,
    at_s: float,
    events: Mapping[str, EventCounts] = MappingProxyType({}),
) -> PoolView:
    """*router*'s pool now, whose engines *scraper* reads, and of whose caches *events* came."""
    snapshot = router.fleet.everything(at_s)
    health = router.fleet.health
    return PoolView(
        pool=router.pool,
        policy=router.settings.policy,
        snapshot=snapshot,
        states=tuple(health.state(e.address, at_s) for e in snapshot.endpoints),
        cache_belief_ratios=tuple(map(router.fleet.cache_belief_ratio, snapshot.endpoints)),
        scrapes=scraper.counts,
        scrape_interval_s=scraper.interval_s,
        learner=router.learner.status(),
        open_decisions=router.n_open,
        settings=router.settings,
        caches=CachesView(router.demand.caches.lost_ratio, router.demand.caches.outgrown),
        kv_events={a: _kv_events(router.fleet.followed, a, counts) for a, counts in events.items()},
    )


def _kv_events(followed: FollowedCaches, address: str, events: EventCounts) -> KvEventsView:
    cache = followed.get(address)
    following = followed.counts.get(address, FollowingCounts())
    return KvEventsView(events, following, None if cache is None else len(cache))
