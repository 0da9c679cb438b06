"""PoolWatches: what listens to each pool's router and tells what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lodestar_extproc.config import PoolSettings
from lodestar_extproc.gain.capacity_watch import CapacityWatch
from lodestar_extproc.gain.compared import Gain
from lodestar_extproc.gain.gain_watch import GainWatch
from lodestar_extproc.metrics import Metrics
from lodestar_extproc.metrics.aliases import PoolAliases, RequestAliases
from lodestar_extproc.metrics.capacity import CapacityCollector
from lodestar_extproc.routing.listener import RouterListener
from lodestar_extproc.routing.pool_view import PoolView


class PoolWatches:
    """Gain and capacity of every pool, and its metrics under the names of others.

    Args:
        pools: their names.
        settings_of: gives the settings of the pool of a name, as they are now.
        alias_metrics: whether other pickers' names are shown.
    """

    def __init__(
        self,
        pools: Iterable[str],
        settings_of: Callable[[str], Callable[[], PoolSettings]],
        *,
        alias_metrics: bool,
    ) -> None:
        names = tuple(pools)
        self._gains = {name: GainWatch(settings_of(name)) for name in names}
        self._capacities = {name: CapacityWatch(settings_of(name)) for name in names}
        self._aliases = RequestAliases() if alias_metrics else None

    def listeners(self, pool: str) -> list[RouterListener]:
        """Who listens to the router of *pool*."""
        ours: list[RouterListener] = [self._gains[pool], self._capacities[pool]]
        return ours if self._aliases is None else [*ours, self._aliases]

    def show(self, metrics: Metrics, pools: Callable[[], Sequence[PoolView]]) -> None:
        """Have *metrics* show all of it, of *pools* as they are when it is asked for."""
        metrics.watch(pools)
        metrics.watch_gains(self.gains)
        metrics.show(CapacityCollector(self._capacities))
        if self._aliases is not None:
            metrics.show(self._aliases)
            metrics.show(PoolAliases(pools))

    def forget_who_left(self, view: PoolView) -> None:
        """Count no endpoint that is not in *view* of its pool, under the names of others."""
        if self._aliases is not None:
            self._aliases.forget_who_left(view)

    def gains(self) -> dict[str, list[Gain]]:
        """By pool, what its decisions gain over other policies."""
        return {name: watch.gains() for name, watch in self._gains.items()}

    def gains_of(self, pool: str) -> list[Gain]:
        """Those of one pool."""
        return self._gains[pool].gains()
