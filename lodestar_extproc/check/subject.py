"""Subject: an Envoy configuration as the rules look at it, its parts that concern Lodestar."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lodestar_extproc.check import finding
from lodestar_extproc.config.errors import ConfigError
from lodestar_extproc.config.ext_proc_fields import likeness_of_choosing
from lodestar_extproc.config.node import read_node
from lodestar_extproc.config.own_service import find_own_service
from lodestar_extproc.config.schema import RESOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lodestar_extproc.check.finding import Patch
    from lodestar_extproc.config.connection_manager import ConnectionManager, GrpcAccessLog, Route
    from lodestar_extproc.config.ext_proc_filter import ExtProcFilter, FilterOnRoute
    from lodestar_extproc.config.node import Node
    from lodestar_extproc.config.own_service import OwnService
    from lodestar_extproc.config.resources import Resources


@dataclass(frozen=True, slots=True)
class Gateway:
    """A connection manager by which requests reach a pool, or that asks Lodestar.

    Attributes:
        filters: its ext_proc filters that call Lodestar.
        routes: those that lead to a pool.
        logs: its access logs that are sent to Lodestar.
    """

    manager: ConnectionManager
    filters: tuple[ExtProcFilter, ...]
    routes: tuple[Route, ...]
    logs: tuple[GrpcAccessLog, ...]


@dataclass(frozen=True)
class Subject:
    """What the rules look at.

    Attributes:
        documents: the tree of each file that was read, by its name.
        pools: the clusters that are pools.
    """

    documents: Mapping[str, Node]
    resources: Resources
    service: OwnService
    pools: tuple[Node, ...]
    gateways: tuple[Gateway, ...]

    @cached_property
    def ways(self) -> tuple[tuple[Gateway, Route], ...]:
        """The routes that lead to a pool and ask Lodestar, each with its gateway.

        All that lead to a pool where none asks; a route that passes Lodestar by is its owner's.
        """
        every = [(gateway, route) for gateway in self.gateways for route in gateway.routes]
        asking = tuple(way for way in every if self.waiting(*way))
        return asking or tuple(every)

    def waiting(self, gateway: Gateway, route: Route) -> tuple[FilterOnRoute, ...]:
        """The filters that ask Lodestar on *route* and wait for its reply."""
        return tuple(f for f in self._running(gateway, route) if not f.ext_proc.observes)

    def decision(self, gateway: Gateway, route: Route) -> FilterOnRoute | None:
        """The one that asks for a choice: whose metadata is taken, else that sees the prompt."""
        return max(self.waiting(gateway, route), key=likeness_of_choosing, default=None)

    def beside_decision(self, gateway: Gateway, route: Route) -> tuple[FilterOnRoute, ...]:
        """The filters that ask Lodestar on *route*, wait, and are not the decision."""
        decision = self.decision(gateway, route)
        waiting = self.waiting(gateway, route)
        return tuple(f for f in waiting if decision and f.ext_proc is not decision.ext_proc)

    def observer(self, gateway: Gateway, route: Route) -> FilterOnRoute | None:
        """The filter that shows Lodestar answers without waiting."""
        observing = (f for f in self._running(gateway, route) if f.ext_proc.observes)
        return next(observing, None)

    def decisions(self) -> Iterator[FilterOnRoute]:
        """The decision on every route that has one."""
        for gateway, route in self.ways:
            if (decision := self.decision(gateway, route)) is not None:
                yield decision

    def observers(self) -> Iterator[FilterOnRoute]:
        """The observer on every route that has one."""
        for gateway, route in self.ways:
            if (observer := self.observer(gateway, route)) is not None:
                yield observer

    def put(self, place: Node, value: object) -> Patch:
        return finding.put(self._document(place), place, value)

    def insert(self, items: Node, index: int, value: object) -> Patch:
        return finding.insert(self._document(items), items, index, value)

    def append(self, items: Node, value: object) -> Patch:
        return finding.append(self._document(items), items, value)

    def _running(self, gateway: Gateway, route: Route) -> Iterator[FilterOnRoute]:
        for ext_proc in gateway.filters:
            on_route = route.of(ext_proc)
            if on_route.runs and self.service.is_called_by(on_route):
                yield on_route

    def _document(self, place: Node) -> Node:
        return self.documents[place.file]


def subject_of(resources: Resources, listen: Sequence[str] = ()) -> Subject:
    """What of *resources* concerns us.

    Args:
        listen: where Lodestar was told to listen, which helps to tell who it is.
    """
    service = find_own_service(resources, listen)
    leading = _leading_to_pools(resources)
    found = (_gateway(manager, service, leading) for manager in resources.managers)
    gateways = tuple(gateway for gateway in found if gateway.filters or gateway.routes)
    return Subject(_documents(resources), resources, service, resources.pools, gateways)


def _documents(resources: Resources) -> dict[str, Node]:
    documents = {resources.root.file: resources.root}
    for file in resources.files:
        try:
            documents[str(file)] = read_node(file, RESOURCES)
        except ConfigError:
            continue  # it is said as not looked at
    return documents


def _gateway(manager: ConnectionManager, service: OwnService, leading: set[str]) -> Gateway:
    return Gateway(
        manager=manager,
        filters=tuple(service.filters_of(manager)),
        routes=tuple(route for route in manager.routes if route.cluster in leading),
        logs=tuple(log for log in manager.grpc_access_logs if service.is_called_by(log.common)),
    )


def _leading_to_pools(resources: Resources) -> set[str]:
    """The names of the pools, and of the aggregates with one in them."""
    names = {pool.get("name").text for pool in resources.pools}
    custom = (c.get("name").text for c in resources.clusters if c.get("cluster_type"))
    return names | {name for name in custom if resources.may_be_pool(name)}
