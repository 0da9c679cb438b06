"""Traps in the access log that tells Lodestar how requests ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.finding import Fault
from lodestar_extproc.check.rules.modes import mode
from lodestar_extproc.config.callee import callee
from lodestar_extproc.names import DECISION_ID, METADATA_NAMESPACE, STREAM_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.ext_proc_filter import FilterOnRoute
    from lodestar_extproc.config.node import Node

NEVER_TOLD = (
    "clients that leave, retries and failed attempts are never told, and their requests count as "
    "running until request_timeout_s"
)
WITHOUT_TAGS = (
    "the time to the first token as Envoy measures it (1.37 and later), or how long an engine that "
    "refuses asks to be left alone"
)
INTERVAL_S = 0.25
"""What Lodestar counts as running is as old as the log; Envoy's default is 1 s."""


def access_log(subject: Subject) -> Iterator[Fault]:
    """Without the access log, aborts, retries and failures are never told."""
    yield from _without_log(
        subject, f"no gRPC access log goes to Lodestar: {NEVER_TOLD}", passes_answers=False
    )


def no_access_log(subject: Subject) -> Iterator[Fault]:
    """Where answers pass through Lodestar it sees them end, and less than the log would tell."""
    yield from _without_log(
        subject,
        "no gRPC access log goes to Lodestar: retries, and why an answer broke off, are not told",
        passes_answers=True,
    )


def access_log_filter(subject: Subject) -> Iterator[Fault]:
    """A request whose entry a filter holds back stays open."""
    for gateway in subject.gateways:
        filters = [log.place.get("filter") for log in gateway.logs]
        # One log that passes everything is enough.
        if filters and not any(_passes_ours(each) for each in filters):
            yield Fault(
                filters[0],
                f"the log's filter holds back entries: {NEVER_TOLD}",
                (subject.put(filters[0], stanzas.only_decided()),),
            )


def access_log_tags(subject: Subject) -> Iterator[Fault]:
    """What the log's entries say only in tags."""
    for gateway in subject.gateways:
        for log in gateway.logs:
            tags = log.common.get("custom_tags")
            present = {tag.get("tag").text for tag in tags.items()}
            missing = {name: value for name, value in stanzas.TAGS.items() if name not in present}
            if missing:
                yield Fault(
                    tags,
                    f"the log does not tell {', '.join(missing)}: {WITHOUT_TAGS}",
                    (subject.put(tags, [*_values(tags), *stanzas.tags(missing)]),),
                )


def access_log_interval(subject: Subject) -> Iterator[Fault]:
    """Envoy keeps entries for a second unless told to send them sooner."""
    for gateway in subject.gateways:
        for log in gateway.logs:
            interval = log.common.get("buffer_flush_interval")
            held_s = interval.seconds if interval else 1.0
            if held_s is None or held_s > INTERVAL_S:
                yield Fault(
                    interval,
                    f"ends of requests are told up to {held_s or 1:g} s late: until then they "
                    "count as running",
                    (subject.put(interval, "0.1s"),),
                )


def _without_log(subject: Subject, problem: str, *, passes_answers: bool) -> Iterator[Fault]:
    """Gateways without it, whose answers pass through Lodestar, or do not."""
    for gateway in subject.gateways:
        asking = (subject.decision(gateway, route) for route in gateway.routes)
        decision = next(filter(None, asking), None)
        if decision is None or gateway.logs or _passes_answers(decision) != passes_answers:
            continue
        logs = gateway.manager.config.get("access_log")
        entry = stanzas.access_log(callee(decision))
        yield Fault(logs, problem, (subject.append(logs, entry),))


def _passes_answers(decision: FilterOnRoute) -> bool:
    """Whether Envoy passes on only what Lodestar gives back of an answer."""
    return mode(decision, "response_body_mode").text == "FULL_DUPLEX_STREAMED"


def _passes_ours(condition: Node) -> bool:
    """Whether a log's filter lets the entry of every decision through."""
    if not condition:
        return True
    if condition.get("not_health_check_filter").value is not None:
        return True
    if some := condition.get("or_filter", "filters"):
        return any(_passes_ours(each) for each in some.items())
    if every := condition.get("and_filter", "filters"):
        return all(_passes_ours(each) for each in every.items())
    matcher = condition.get("metadata_filter", "matcher")
    path = [step.get("key").text for step in matcher.get("path").items()]
    present = matcher.get("value", "present_match").flag
    ours = matcher.get("filter").text == METADATA_NAMESPACE
    return ours and present and path in ([DECISION_ID], [STREAM_ID])


def _values(items: Node) -> list[object]:
    return [item.value for item in items.items()]
