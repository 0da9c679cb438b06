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
        limit = _limit(gateway, route)
        held = _bytes(limit)
        if held < MIN_BODY_BYTES:
            written = f"{held:.0f} bytes" if limit else "1 MiB, Envoy's default,"
            yield Fault(
                limit,
                f"a request body above {written} is answered 413: prompts with images or "
                "documents are larger",
                (subject.put(limit, BODY_BYTES),),
            )


def _limit(gateway: Gateway, route: Route) -> Node:
    """What holds on *route*: the listener's limit, or a higher one of the route.

    Of the route's, the first counts that is written: `request_body_buffer_limit` of the route, of
    its virtual host, then `per_request_buffer_limit_bytes` of these. Tried with Envoy 1.40, bodies
    of 3 MB: `tests/check/test_body_limits.py`.
    """
    listener = gateway.manager.listener.get("per_connection_buffer_limit_bytes")
    written = (
        place.get(name)
        for name in ("request_body_buffer_limit", "per_request_buffer_limit_bytes")
        for place in (route.node, route.host)
    )
    own = next(filter(None, written), listener)
    return own if _bytes(own) > _bytes(listener) else listener


def _bytes(limit: Node) -> float:
    return DEFAULT_LIMIT_BYTES if limit.number is None else limit.number
