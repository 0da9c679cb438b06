"""Subject: an Envoy configuration as the rules look at it, its parts that concern Lodestar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Patch, put
from lodestar_extproc.config import envoy_tree as tree
from lodestar_extproc.config.own_service import OwnService, find_own_service

if TYPE_CHECKING:
    from lodestar_extproc.config.connection_manager import ConnectionManager, GrpcAccessLog, Route
    from lodestar_extproc.config.ext_proc_filter import ExtProcFilter
    from lodestar_extproc.config.node import Node
    from lodestar_extproc.config.resources import Resources


@dataclass(frozen=True, slots=True)
class Gateway:
    """A connection manager that Lodestar is asked by, or that leads to a pool.

    Attributes:
        decider, watcher: its ext_proc filters that call Lodestar; None where there is none.
        log: its access log that is sent to Lodestar.
        routes: those that lead to a pool.
    """

    connections: ConnectionManager
    decider: ExtProcFilter | None
    watcher: ExtProcFilter | None
    log: GrpcAccessLog | None
    routes: tuple[Route, ...]

    @property
    def listener(self) -> Node:
        return self.connections.listener

    @property
    def manager(self) -> Node:
        return self.connections.config

    @property
    def decision(self) -> Node | None:
        """What the deciding filter is set to."""
        return None if self.decider is None else self.decider.config

    @property
    def observer(self) -> Node | None:
        """What the observing filter is set to."""
        return None if self.watcher is None else self.watcher.config


@dataclass(frozen=True, slots=True)
class Subject:
    """What the rules look at.

    Attributes:
        pools: the clusters that are pools.
        services: the clusters through which Envoy reaches Lodestar.
    """

    resources: Resources
    own: OwnService
    gateways: tuple[Gateway, ...]

    @property
    def root(self) -> Node:
        return self.resources.root

    @property
    def pools(self) -> tuple[Node, ...]:
        return self.resources.pools

    @property
    def services(self) -> tuple[Node, ...]:
        return self.own.clusters

    def put(self, place: Node, value: object) -> Patch:
        return put(self.root, place, value)


def subject_of(resources: Resources) -> Subject:
    own = find_own_service(resources)
    names = {pool.get("name").text for pool in resources.pools}
    found = (_gateway(manager, own, names) for manager in resources.managers)
    gateways = tuple(gateway for gateway in found if gateway.decision or gateway.routes)
    return Subject(resources, own, gateways)


def _gateway(manager: ConnectionManager, own: OwnService, pools: set[str]) -> Gateway:
    return Gateway(
        connections=manager,
        decider=tree.decision_filter(manager, own),
        watcher=tree.observing_filter(manager, own),
        log=tree.access_log(manager, own),
        routes=tuple(route for route in manager.routes if route.cluster in pools),
    )
