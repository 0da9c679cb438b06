"""Traps in the ext_proc filters: timeouts, failure, metadata; as they stand, and on a route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Fault
from lodestar_extproc.config.ext_proc_fields import (
    DEFAULT_MESSAGE_TIMEOUT_S,
    longest_wait_s,
    receiving_namespaces,
)
from lodestar_extproc.config.holding import WAIT_MARGIN_S
from lodestar_extproc.config.members import settings_block
from lodestar_extproc.names import METADATA_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Subject

CHANGEABLE_MODES = ("BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED")
"""In which a request's body may be another than came."""


def message_timeout(subject: Subject) -> Iterator[Fault]:
    """Envoy waits 200 ms for a choice unless told to wait longer."""
    for decision in subject.decisions():
        timeout = decision.get("message_timeout")
        held_s = timeout.seconds if timeout else DEFAULT_MESSAGE_TIMEOUT_S
        if held_s is not None and held_s <= DEFAULT_MESSAGE_TIMEOUT_S:
            yield Fault(
                timeout,
                f"Envoy gives up on a choice after {held_s * 1e3:g} ms: large prompts and busy "
                "moments go unrouted",
                (subject.put(timeout, "0.5s"),),
            )


def max_message_timeout(subject: Subject) -> Iterator[Fault]:
    """Envoy goes on without a choice while its request is held here, if it may not wait for it."""
    limits = [settings_block(pool).get("hold_limit_s") for pool in subject.pools]
    wanted_s = max((limit.number or 0.0 for limit in limits), default=0.0) + WAIT_MARGIN_S
    for decision in subject.decisions():
        longest = decision.get("max_message_timeout")
        if wanted_s > max(WAIT_MARGIN_S, longest_wait_s(decision)):
            yield Fault(
                longest,
                f"requests are held for up to {wanted_s - WAIT_MARGIN_S:g} s (hold_limit_s), and "
                f"Envoy goes on without a choice after {longest_wait_s(decision):g} s",
                (subject.put(longest, f"{wanted_s:g}s"),),
            )


def failure_mode_allow(subject: Subject) -> Iterator[Fault]:
    """With Lodestar down, Envoy answers 500 instead of going on without a choice."""
    for on_route in (*subject.decisions(), *subject.observers()):
        allow = on_route.get("failure_mode_allow")
        if not allow.flag:
            yield Fault(
                allow,
                "while Lodestar is down, slow or restarting, clients get 500 and 504",
                (subject.put(allow, value=True),),
            )


def receiving_namespace(subject: Subject) -> Iterator[Fault]:
    """Envoy drops the choice silently unless the filter may write its namespace."""
    for decision in subject.decisions():
        if METADATA_NAMESPACE not in receiving_namespaces(decision):
            place = decision.get("metadata_options", "receiving_namespaces", "untyped")
            yield Fault(
                place,
                f"Envoy drops the choice: {METADATA_NAMESPACE} is no namespace that it takes "
                "from this filter",
                (subject.append(place, METADATA_NAMESPACE),),
            )


def model_rewrites(subject: Subject) -> Iterator[Fault]:
    """Of a body that goes on part by part, or is not shown, no model can be rewritten."""
    if not any(settings_block(pool).get("model_rewrites") for pool in subject.pools):
        return
    for decision in subject.decisions():
        mode = decision.get("processing_mode", "request_body_mode")
        if mode.text not in CHANGEABLE_MODES:
            yield Fault(
                mode,
                "model_rewrites rewrites nothing: Lodestar is not given the whole body before "
                "its parts go on",
                (subject.put(mode, "BUFFERED"),),
            )
