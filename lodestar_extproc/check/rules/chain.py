"""Traps in a connection manager's filters: is Lodestar asked, and once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.finding import Fault, drop
from lodestar_extproc.check.rules.modes import sees_requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.finding import Patch
    from lodestar_extproc.check.subject import Gateway, Subject
    from lodestar_extproc.config.ext_proc_filter import ExtProcFilter


def ext_proc_filter(subject: Subject) -> Iterator[Fault]:
    """A pool's requests never reach Lodestar."""
    for gateway in subject.gateways:
        if not gateway.routes or any(subject.waiting(gateway, r) for r in gateway.routes):
            continue
        waiting = [f for f in gateway.filters if not f.observes]
        if waiting:
            yield Fault(
                waiting[0].place,
                f"{waiting[0].name} runs on no route that leads to a pool",
                _enabled(gateway, waiting[0]),
            )
        elif subject.service.names or not gateway.manager.ext_proc:
            # Else one of those that are asked may be Lodestar: `whose_service` asks which.
            yield Fault(
                gateway.manager.config.get("http_filters"),
                "a route leads to a pool, but no ext_proc filter asks Lodestar",
                (_before_router(subject, gateway, stanzas.decision_filter(service_name(subject))),),
            )


def not_asked_on_every_route(subject: Subject) -> Iterator[Fault]:
    """Some routes lead to a pool past Lodestar, which may be meant."""
    for gateway in subject.gateways:
        asked = [bool(subject.waiting(gateway, route)) for route in gateway.routes]
        for route, asks in zip(gateway.routes, asked, strict=True):
            if any(asked) and not asks:
                yield Fault(
                    route.node,
                    f"this route leads to pool {route.cluster} and does not ask Lodestar: its load "
                    "is not counted",
                )


def asked_twice(subject: Subject) -> Iterator[Fault]:
    """Two filters that wait for a choice make two decisions, of which one is never ended."""
    for gateway, route in subject.ways:
        for other in subject.beside_decision(gateway, route):
            if sees_requests(other):
                yield Fault(
                    other.ext_proc.place,
                    "Lodestar is asked twice for each request, and one of the two decisions stays "
                    "open",
                    (drop(other.ext_proc.place),),
                )


def service_name(subject: Subject) -> str:
    """The cluster that is Lodestar's, or looks like it."""
    names = [*subject.service.names, *(c.get("name").text for c in subject.resources.clusters)]
    return next((name for name in names if "lodestar" in name), "lodestar")


def _before_router(subject: Subject, gateway: Gateway, stanza: stanzas.Stanza) -> Patch:
    """Put a filter last but for the router: it sees what the filters before let through."""
    filters = gateway.manager.config.get("http_filters")
    entries = list(filters.items())
    return subject.insert(filters, max(len(entries) - 1, 0), stanza)


def _enabled(gateway: Gateway, ext_proc: ExtProcFilter) -> tuple[Patch, ...]:
    """What makes a filter run that nothing but itself switches off."""
    if ext_proc.place.get("disabled").flag and not any(
        place.get("typed_per_filter_config", ext_proc.name)
        for route in gateway.routes
        for place in route.places
    ):
        return (drop(ext_proc.place.get("disabled")),)
    return ()
