"""Traps in the routes that lead to a pool: timeouts, retries, which pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.finding import Fault, drop
from lodestar_extproc.config.overrides import route_headers
from lodestar_extproc.names import POOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Gateway, Subject
    from lodestar_extproc.config.connection_manager import Route
    from lodestar_extproc.config.node import Node

DEFAULT_TIMEOUT_S = 15.0
"""Envoy's own, where the route sets none."""
MIN_TIMEOUT_S = 60.0
"""An answer of 2,000 tokens takes about a minute at 30 tokens a second."""
REPEATING = frozenset({"reset", "5xx", "gateway-error"})
"""Each makes Envoy repeat a request whose connection broke before the answer's headers."""


def route_timeout(subject: Subject) -> Iterator[Fault]:
    """Envoy cuts an answer that takes longer than the route's timeout, 15 s by default."""
    for route in _routes(subject):
        timeout = route.node.get("route", "timeout")
        written_s = timeout.seconds
        if written_s is None or 0 < written_s < MIN_TIMEOUT_S:
            held_s = DEFAULT_TIMEOUT_S if written_s is None else written_s
            yield Fault(
                timeout,
                f"an answer that takes longer than {held_s:g} s is cut off in the middle",
                (subject.put(timeout, "0s"),),
            )


def retries(subject: Subject) -> Iterator[Fault]:
    """Without retries the ordered candidates are of no use: one dead engine fails requests."""
    for route in _routes(subject):
        policy = route.retry_policy
        if not policy:
            yield Fault(
                policy,
                "no retry_policy: a request to an engine that refuses it fails, though Lodestar "
                "names the next one",
                (subject.put(policy, stanzas.retry_policy()),),
            )


def previous_hosts(subject: Subject) -> Iterator[Fault]:
    """A retry may go to the engine that has just failed."""
    for policy in _retry_policies(subject):
        predicates = policy.get("retry_host_predicate")
        entries = list(predicates.items())
        if not any("previous_hosts" in entry.get("name").text for entry in entries):
            attempts = policy.get("host_selection_retry_max_attempts")
            cure = [
                subject.put(predicates, [*(e.value for e in entries), stanzas.previous_hosts()])
            ]
            if not attempts:
                cure.append(subject.put(attempts, 5))
            yield Fault(
                predicates, "a retry may go to the engine that has just failed", tuple(cure)
            )


def retry_on_reset(subject: Subject) -> Iterator[Fault]:
    """A request whose connection broke is repeated, though the engine may be computing it."""
    for policy in _retry_policies(subject):
        retry_on = policy.get("retry_on")
        names = [name.strip() for name in retry_on.text.split(",")]
        risky = [name for name in names if name in REPEATING]
        if risky:
            safe = [name for name in names if name not in REPEATING]
            safe += [name for name in stanzas.RETRY_ON if name not in safe]
            yield Fault(
                retry_on,
                f"{' and '.join(risky)} repeats a generation that an engine may have begun",
                (subject.put(retry_on, ",".join(safe)),),
            )


def per_try_idle_timeout(subject: Subject) -> Iterator[Fault]:
    """Engines send headers at once; the silence of prefill then looks like a dead stream."""
    for policy in _retry_policies(subject):
        timeout = policy.get("per_try_idle_timeout")
        if timeout:
            yield Fault(
                timeout,
                f"a stream that waits {timeout.text} for its first token is cut off: engines send "
                "headers at once, and the prefill that follows is silent",
                (drop(timeout),),
            )


def route_pool(subject: Subject) -> Iterator[Fault]:
    """Lodestar must choose among the endpoints of the cluster that Envoy will send to."""
    for gateway in subject.gateways:
        if gateway.decider is None or gateway.decision is None:
            continue
        for route, headers in route_headers(gateway.connections, subject.own):
            if not route.of(gateway.decider).runs or route.cluster not in _names(subject):
                continue
            named = headers.get(POOL)
            if named is not None:
                yield from _other_pool(subject, route, named.get("value"))
            elif len(subject.pools) > 1:
                yield from _untold_pool(subject, gateway, gateway.decision)


def _other_pool(subject: Subject, route: Route, value: Node) -> Iterator[Fault]:
    if value.text != route.cluster:
        yield Fault(
            value,
            f"Lodestar chooses from pool {value.text}, but the route leads to {route.cluster}: "
            "every choice is unknown there",
            (subject.put(value, route.cluster),),
        )


def _untold_pool(subject: Subject, gateway: Gateway, decision: Node) -> Iterator[Fault]:
    attributes = decision.get("request_attributes")
    names = [attribute.text for attribute in attributes.items()]
    if "xds.cluster_name" not in names:
        yield Fault(
            attributes,
            f"there are {len(subject.pools)} pools, and Lodestar is not told which one a request "
            f"goes to, {' or '.join(sorted({r.cluster for r in gateway.routes}))}",
            (subject.put(attributes, [*names, "xds.cluster_name"]),),
        )


def _routes(subject: Subject) -> Iterator[Route]:
    """Each route once, however many clusters it leads to."""
    seen = set()
    for gateway in subject.gateways:
        for route in gateway.routes:
            if route.node.path not in seen:
                seen.add(route.node.path)
                yield route


def _retry_policies(subject: Subject) -> Iterator[Node]:
    """Each retry policy once; a virtual host's holds for several routes."""
    policies = {route.retry_policy.path: route.retry_policy for route in _routes(subject)}
    yield from (policy for policy in policies.values() if policy)


def _names(subject: Subject) -> set[str]:
    return {pool.get("name").text for pool in subject.pools}
