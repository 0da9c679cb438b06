"""Traps in where routes lead, and which pool Lodestar is told that a request goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Fault
from lodestar_extproc.check.unseen_parts import unseen_parts
from lodestar_extproc.config.overrides import route_headers
from lodestar_extproc.names import CLUSTER_NAME, POOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Gateway, Subject
    from lodestar_extproc.config.connection_manager import Route
    from lodestar_extproc.config.ext_proc_filter import FilterOnRoute
    from lodestar_extproc.config.node import Node


def no_route(subject: Subject) -> Iterator[Fault]:
    """A pool that no route leads to gets no requests."""
    complete = not subject.resources.not_looked_at and not any(unseen_parts(subject))
    if subject.pools and not subject.ways and complete:
        pool = subject.pools[0]
        yield Fault(pool, f"no route leads to {pool.get('name').text}: it gets no requests")


def route_pool(subject: Subject) -> Iterator[Fault]:
    """Lodestar must choose among the endpoints of the cluster that Envoy will send to."""
    for gateway in subject.gateways:
        for route, headers in route_headers(gateway.manager, subject.service):
            if route not in gateway.routes:
                continue
            decision = subject.decision(gateway, route)
            if decision is None:
                continue
            named = headers.get(POOL)
            if named is not None:
                yield from _other_pool(subject, route, named.get("value"))
            elif len(subject.pools) > 1:
                yield from _untold_pool(subject, gateway, decision)


def _other_pool(subject: Subject, route: Route, value: Node) -> Iterator[Fault]:
    pools = [pool.get("name").text for pool in subject.pools]
    # Which pool of an aggregate a request goes to, no route can tell.
    if value.text != route.cluster and route.cluster in pools:
        yield Fault(
            value,
            f"Lodestar chooses from pool {value.text}, but the route leads to {route.cluster}: "
            "every choice is unknown there",
            (subject.put(value, route.cluster),),
        )


def _untold_pool(subject: Subject, gateway: Gateway, decision: FilterOnRoute) -> Iterator[Fault]:
    attributes = decision.get("request_attributes")
    names = [attribute.text for attribute in attributes.items()]
    if CLUSTER_NAME not in names:
        yield Fault(
            attributes,
            f"there are {len(subject.pools)} pools, and Lodestar is not told which one a request "
            f"goes to, {' or '.join(sorted({r.cluster for r in gateway.routes}))}",
            (subject.append(attributes, CLUSTER_NAME),),
        )
