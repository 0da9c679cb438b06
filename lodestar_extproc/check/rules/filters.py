"""Traps in the ext_proc filters: timeouts, failure, metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Fault
from lodestar_extproc.config import envoy_tree as tree
from lodestar_extproc.config.members import settings_block
from lodestar_extproc.names import METADATA_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Gateway, Subject
    from lodestar_extproc.config.node import Node

DEFAULT_MESSAGE_TIMEOUT_S = 0.2
"""Envoy's own, where the filter sets none."""
CHANGEABLE_MODES = ("BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED")
"""In which a request's body may be another than came."""


def message_timeout(subject: Subject) -> Iterator[Fault]:
    """Envoy waits 200 ms for a choice unless told to wait longer."""
    for gateway in subject.gateways:
        if gateway.decision is not None:
            timeout = gateway.decision.get("message_timeout")
            written_s = timeout.seconds
            if written_s is None or written_s <= DEFAULT_MESSAGE_TIMEOUT_S:
                held_s = DEFAULT_MESSAGE_TIMEOUT_S if written_s is None else written_s
                yield Fault(
                    timeout,
                    f"Envoy gives up on a choice after {held_s * 1e3:g} ms: large prompts and busy "
                    "moments go unrouted",
                    (subject.put(timeout, "0.5s"),),
                )


def failure_mode_allow(subject: Subject) -> Iterator[Fault]:
    """With Lodestar down, Envoy answers 500 instead of going on without a choice."""
    for gateway in subject.gateways:
        for config in _ours(gateway):
            allow = config.get("failure_mode_allow")
            if not allow.flag:
                yield Fault(
                    allow,
                    "while Lodestar is down, slow or restarting, clients get 500 and 504",
                    (subject.put(allow, value=True),),
                )


def receiving_namespace(subject: Subject) -> Iterator[Fault]:
    """Envoy drops the choice silently unless the filter may write its namespace."""
    for gateway in subject.gateways:
        if gateway.decision is None:
            continue
        names = tree.receiving_namespaces(gateway.decision)
        if METADATA_NAMESPACE not in names:
            place = gateway.decision.get("metadata_options", "receiving_namespaces", "untyped")
            yield Fault(
                place,
                f"Envoy drops the choice: {METADATA_NAMESPACE} is no namespace that it takes "
                "from this filter",
                (subject.put(place, [*names, METADATA_NAMESPACE]),),
            )


def forwarding_namespace(subject: Subject) -> Iterator[Fault]:
    """The observer cannot tell whose first token it sees unless it is shown the decision's id."""
    for gateway in subject.gateways:
        if gateway.observer is None:
            continue
        names = tree.forwarding_namespaces(gateway.observer)
        if METADATA_NAMESPACE not in names:
            place = gateway.observer.get("metadata_options", "forwarding_namespaces", "untyped")
            yield Fault(
                place,
                "first tokens are seen but not whose they are: the observing filter is not shown "
                f"{METADATA_NAMESPACE}, which holds the decision's id",
                (subject.put(place, [*names, METADATA_NAMESPACE]),),
            )


def model_rewrites(subject: Subject) -> Iterator[Fault]:
    """Of a body that goes on part by part, or is not shown, no model can be rewritten."""
    if not any(settings_block(pool).get("model_rewrites") for pool in subject.pools):
        return
    for gateway in subject.gateways:
        if gateway.decision is not None:
            mode = gateway.decision.get("processing_mode", "request_body_mode")
            if mode.text not in CHANGEABLE_MODES:
                yield Fault(
                    mode,
                    "model_rewrites rewrites nothing: Lodestar is not given the whole body before "
                    "its parts go on",
                    (subject.put(mode, "BUFFERED"),),
                )


def _ours(gateway: Gateway) -> list[Node]:
    return [config for config in (gateway.decision, gateway.observer) if config is not None]
