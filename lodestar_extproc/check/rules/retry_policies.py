"""The retry policy that holds on a route: its own, or its virtual host's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import drop

if TYPE_CHECKING:
    from lodestar_extproc.check.finding import Patch
    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.connection_manager import Route
    from lodestar_extproc.config.node import Node


def own_policy(route: Route) -> Node:
    return route.node.get("route", "retry_policy")


def changed(subject: Subject, route: Route, **values: object) -> tuple[Patch, ...]:
    """What sets fields of the policy that holds on *route*, and on no other one.

    A policy of the virtual host holds for routes beside it: the route gets a copy of its own.
    """
    policy, own = route.retry_policy, own_policy(route)
    if own or not policy:
        return tuple(subject.put(own.get(name), value) for name, value in values.items())
    return (subject.put(own, {**_copied(policy), **values}),)


def without(subject: Subject, route: Route, name: str) -> tuple[Patch, ...]:
    """What takes a field out of it."""
    policy, own = route.retry_policy, own_policy(route)
    if not policy.get(name):
        return ()
    if own:
        return (drop(policy.get(name)),)
    copied = _copied(policy)
    copied.pop(str(policy.get(name).path[-1]))
    return (subject.put(own, copied),)


def _copied(policy: Node) -> dict[str, object]:
    return dict(policy.value) if isinstance(policy.value, dict) else {}
