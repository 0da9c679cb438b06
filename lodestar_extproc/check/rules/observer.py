"""Traps in the second ext_proc filter, which shows Lodestar answers while they pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.finding import Fault
from lodestar_extproc.check.rules.modes import mode, sees_answers, sees_requests
from lodestar_extproc.config.callee import callee
from lodestar_extproc.config.ext_proc_fields import forwarding_namespaces
from lodestar_extproc.names import METADATA_NAMESPACE, UPSTREAM_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.finding import Patch
    from lodestar_extproc.check.subject import Gateway, Subject
    from lodestar_extproc.config.ext_proc_filter import FilterOnRoute

NOT_SEEN = (
    "no first token is seen when it comes: Lodestar learns of an answer when it ends, which for a "
    "long one is minutes later"
)


def observer_missing(subject: Subject) -> Iterator[Fault]:
    """Lodestar sees first tokens only by a filter that shows it answers."""
    for gateway, route in subject.ways:
        decision, observer = subject.decision(gateway, route), subject.observer(gateway, route)
        if decision is None or sees_answers(decision):
            continue
        if observer is not None and not sees_answers(observer):
            body = mode(observer, "response_body_mode")
            yield Fault(body, NOT_SEEN, (subject.put(body, "STREAMED"),))
        elif observer is None and not any(
            sees_answers(other) for other in subject.beside_decision(gateway, route)
        ):
            filters = gateway.manager.config.get("http_filters")
            yield Fault(filters, NOT_SEEN, _added(subject, gateway, decision))


def observer_waits(subject: Subject) -> Iterator[Fault]:
    """A filter that is to show answers, and for which Envoy waits, holds every answer up."""
    for gateway, route in subject.ways:
        for other in subject.beside_decision(gateway, route):
            if not sees_requests(other):
                place = other.ext_proc.config.get("observability_mode")
                yield Fault(
                    place,
                    "every part of an answer waits for Lodestar: a slow one withholds answers",
                    (subject.put(place, value=True),),
                )


def forwarding_namespace(subject: Subject) -> Iterator[Fault]:
    """The observer cannot tell whose first token it sees unless it is shown the decision's id."""
    for observer in subject.observers():
        if METADATA_NAMESPACE not in forwarding_namespaces(observer):
            place = observer.get("metadata_options", "forwarding_namespaces", "untyped")
            yield Fault(
                place,
                "first tokens are seen but not whose they are: the observing filter is not shown "
                f"{METADATA_NAMESPACE}, which holds the decision's id",
                (subject.append(place, METADATA_NAMESPACE),),
            )


def observer_attributes(subject: Subject) -> Iterator[Fault]:
    """After a retry, only Envoy knows which engine an answer comes from."""
    for observer in subject.observers():
        attributes = observer.get("response_attributes")
        if UPSTREAM_ADDRESS not in [attribute.text for attribute in attributes.items()]:
            yield Fault(
                attributes,
                f"first tokens are seen but not who gave them: {UPSTREAM_ADDRESS} is not told",
                (subject.append(attributes, UPSTREAM_ADDRESS),),
            )


def _added(subject: Subject, gateway: Gateway, decision: FilterOnRoute) -> tuple[Patch, ...]:
    """An observer after the decision; where the decision runs by a route's word, so does it."""
    filters = gateway.manager.config.get("http_filters")
    paths = [entry.path for entry in filters.items()]
    place = decision.ext_proc.place
    at = paths.index(place.path) + 1 if place.path in paths else len(paths) - 1
    if decision.ext_proc.disabled:
        return ()
    return (subject.insert(filters, at, stanzas.observing_filter(callee(decision))),)
