"""Levels of priority: to which of a pool's endpoints a request may go, by Envoy's own rules.

https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority
and panic_threshold beside it; in Envoy's integers, as `load_balancer_context_base` and
`LoadBalancerBase::recalculatePerPriorityState` compute them. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from lodestar_extproc.endpoint import Endpoint

ALL = 100  # percent: all requests, or all endpoints of a level


class LevelCount(NamedTuple):
    """How many endpoints a level has, and how many of them are up.

    Attributes:
        n_healthy, n_degraded: up, of either kind.
    """

    n: int
    n_healthy: int
    n_degraded: int = 0
    overprovisioning: float = 1.4
    panic_ratio: float = 0.5

    @property
    def health(self) -> int:
        """Percent of the requests that its healthy endpoints could serve."""
        return self._availability(self.n_healthy)

    @property
    def degraded(self) -> int:
        """Percent of the requests that its degraded endpoints could serve."""
        return self._availability(self.n_degraded)

    @property
    def is_below_panic(self) -> bool:
        """Whether so few are up that those would be run over."""
        return self.n == 0 or self.n_healthy + self.n_degraded < self.panic_ratio * self.n

    def _availability(self, n_up: int) -> int:
        return min(ALL, round(ALL * self.overprovisioning) * n_up // self.n) if self.n else 0


class Share(NamedTuple):
    """A part of the requests.

    Attributes:
        level: the place of the level that gets it.
        percent: of all requests.
        to_degraded: its degraded endpoints get it; else its healthy ones.
        to_all: whoever is up or not, for too few are.
    """

    level: int
    percent: int
    to_degraded: bool = False
    to_all: bool = False


def shares(levels: Sequence[LevelCount]) -> list[Share]:
    """How requests are shared out among *levels*, the preferred one first; 100 percent in all.

    >>> shares([LevelCount(4, 4), LevelCount(2, 2)])
    [Share(level=0, percent=100, to_degraded=False, to_all=False)]
    >>> [share.percent for share in shares([LevelCount(4, 2), LevelCount(2, 2)])]
    [70, 30]
    """
    total = min(ALL, sum(level.health + level.degraded for level in levels))
    if total < ALL and all(level.is_below_panic for level in levels):
        return _by_size(levels)
    if total == 0:
        return [Share(0, ALL, to_all=True)]
    healthy, rest = _dealt([level.health for level in levels], total, ALL)
    degraded, rest = _dealt([level.degraded for level in levels], total, rest)
    dealt = [Share(i, percent) for i, percent in healthy]
    dealt += [Share(i, percent, to_degraded=True) for i, percent in degraded]
    # What rounding left over is the first one's.
    dealt[0] = dealt[0]._replace(percent=dealt[0].percent + rest)
    return [share for share in dealt if share.percent]


def drawn(dealt: Sequence[Share], draw: float) -> Share:
    """The share that *draw*, from 0 to 1, falls into."""
    passed = 0.0
    for share in dealt:
        passed += share.percent
        if draw * ALL < passed:
            return share
    return dealt[-1]


def columns_of_a_level(
    endpoints: Sequence[Endpoint],
    columns: Sequence[int],
    is_up: Callable[[int], bool],
    draw: float,
) -> list[int]:
    """Those of *columns*, places in *endpoints*, that one request may go to.

    Where Envoy would send to all of a level because too few are up, those that are up stay the
    choice, as they do in a pool without levels: they are known better here, and so is their load.

    Args:
        draw: from 0 to 1; tells which share of the requests this one belongs to.
    """
    levels: dict[int, list[int]] = {}
    for column in columns:
        levels.setdefault(endpoints[column].level.priority, []).append(column)
    up = {column for column in columns if is_up(column)}
    order = [levels[priority] for priority in sorted(levels)]
    share = drawn(shares([_counted(endpoints, level, up) for level in order]), draw)
    level = order[share.level]
    wanted = [
        column
        for column in level
        if column in up
        and (share.to_all or endpoints[column].level.is_degraded is share.to_degraded)
    ]
    return wanted or level


def _counted(endpoints: Sequence[Endpoint], level: Sequence[int], up: set[int]) -> LevelCount:
    rule = endpoints[level[0]].level
    degraded = [endpoints[column].level.is_degraded for column in level if column in up]
    n_degraded = sum(degraded)
    return LevelCount(
        len(level), len(degraded) - n_degraded, n_degraded, rule.overprovisioning, rule.panic_ratio
    )


def _dealt(availability: Sequence[int], total: int, rest: int) -> tuple[list[tuple[int, int]], int]:
    """Shares of *rest* by *availability*, which is *total* in all; and what is left of it."""
    dealt = []
    for i, available in enumerate(availability):
        if available:
            percent = min(rest, available * ALL // total)
            dealt.append((i, percent))
            rest -= percent
    return dealt, rest


def _by_size(levels: Sequence[LevelCount]) -> list[Share]:
    """Nobody is spared: by the number of endpoints."""
    n = sum(level.n for level in levels)
    dealt = [Share(i, ALL * level.n // n, to_all=True) for i, level in enumerate(levels) if level.n]
    rest = ALL - sum(share.percent for share in dealt)
    return [dealt[0]._replace(percent=dealt[0].percent + rest), *dealt[1:]]
