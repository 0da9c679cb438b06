"""The limit on the body of a request, which holds where ext_proc buffers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Fault
from lodestar_extproc.check.rules.modes import mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Gateway, Subject
    from lodestar_extproc.config.connection_manager import Route
    from lodestar_extproc.config.node import Node

DEFAULT_LIMIT_BYTES = 2**20
"""Envoy's own, of a listener that sets none."""
MIN_BODY_BYTES = 8 * 2**20
"""A prompt of a million tokens is 4 MB of text, and JSON may double it."""
BODY_BYTES = 32 * 2**20
"""What the cure sets, as `envoy/envoy.yaml` does: room for images, too."""


def body_limit(subject: Subject) -> Iterator[Fault]:
    """A body above the limit is answered 413 where ext_proc buffers it."""
    for gateway, route in subject.ways:
        decision = subject.decision(gateway, route)
        if decision is None or mode(decision, "request_body_mode").text != "BUFFERED":
            continue
        limit, cured = _limit(gateway, route)
        held = limit.number if limit else DEFAULT_LIMIT_BYTES
        if held is not None and held < MIN_BODY_BYTES:
            written = f"{held:.0f} bytes" if limit else "1 MiB, Envoy's default,"
            yield Fault(
                limit,
                f"a request body above {written} is answered 413: prompts with images or "
                "documents are larger",
                (subject.put(cured, BODY_BYTES),),
            )


def _limit(gateway: Gateway, route: Route) -> tuple[Node, Node]:
    """What holds on *route*, and what raises it.

    `request_body_buffer_limit` of the route, else of its virtual host, holds alone. Else the less
    of the listener's limit and of `per_request_buffer_limit_bytes`, of the same two.
    """
    own = [place.get("request_body_buffer_limit") for place in (route.node, route.host)]
    if found := next(filter(None, own), None):
        return found, found
    lower = [place.get("per_request_buffer_limit_bytes") for place in (route.node, route.host)]
    listener = gateway.manager.listener.get("per_connection_buffer_limit_bytes")
    limit = next(filter(None, lower), listener)
    if limit is listener or _bytes(listener) <= _bytes(limit):
        return listener, listener
    return limit, own[0]


def _bytes(limit: Node) -> float:
    return DEFAULT_LIMIT_BYTES if limit.number is None else limit.number
