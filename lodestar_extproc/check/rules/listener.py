"""Traps in a listener and its connection manager: bodies, filters, logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.finding import Fault
from lodestar_extproc.config import envoy_tree as tree
from lodestar_extproc.config.callee import callee

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Subject

MIN_BODY_BYTES = 8 * 2**20
"""A prompt of a million tokens is 4 MB of text, and JSON may double it."""
BODY_BYTES = 32 * 2**20
"""What the cure sets, as `envoy/envoy.yaml` does: room for images, too."""


def body_limit(subject: Subject) -> Iterator[Fault]:
    """A body above the listener's buffer is answered 413 where ext_proc buffers it."""
    for gateway in subject.gateways:
        buffered = gateway.decision and tree.request_body_mode(gateway.decision) == "BUFFERED"
        limit = gateway.listener.get("per_connection_buffer_limit_bytes")
        if buffered and (limit.number or 0) < MIN_BODY_BYTES:
            written = f"{limit.text} bytes" if limit else "1 MiB, Envoy's default,"
            yield Fault(
                limit,
                f"a request body above {written} is answered 413: prompts with images or "
                "documents are larger",
                (subject.put(limit, BODY_BYTES),),
            )


def ext_proc_filter(subject: Subject) -> Iterator[Fault]:
    """A pool's requests never reach Lodestar."""
    for gateway in subject.gateways:
        if gateway.decision is None:
            filters = gateway.manager.get("http_filters")
            asks = stanzas.decision_filter(_service_name(subject))
            yield Fault(
                filters,
                "a route leads to a pool, but no ext_proc filter asks Lodestar",
                (subject.put(filters, [asks, *(node.value for node in filters.items())]),),
            )


def access_log(subject: Subject) -> Iterator[Fault]:
    """Without the access log, aborts, retries and failures are never told."""
    for gateway in subject.gateways:
        if gateway.decision is None or gateway.log is not None:
            continue
        logs = gateway.manager.get("access_log")
        entry = stanzas.access_log(callee(gateway.decision))
        yield Fault(
            logs,
            "no gRPC access log: clients that leave, retries and failed attempts are never told, "
            "and their requests count as running until request_timeout_s",
            (subject.put(logs, [*(node.value for node in logs.items()), entry]),),
        )


def _service_name(subject: Subject) -> str:
    """The cluster that looks like Lodestar's."""
    names = [cluster.get("name").text for cluster in subject.resources.clusters]
    return next((name for name in names if "lodestar" in name), "lodestar")
