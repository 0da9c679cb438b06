"""Traps in what of a request and its answer Lodestar is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.ext_proc_filter import FilterOnRoute
    from lodestar_extproc.config.node import Node


def processing_mode(subject: Subject) -> Iterator[Fault]:
    """Without a request's headers the choice comes too late, without its body it is blind."""
    for decision in subject.decisions():
        headers = mode(decision, "request_header_mode")
        if headers.text == "SKIP":
            yield Fault(
                headers,
                "Lodestar is not shown the headers of requests: Envoy has chosen the engine before "
                "a choice comes",
                (subject.put(headers, "SEND"),),
            )
        body = mode(decision, "request_body_mode")
        if not sees_body(decision):
            yield Fault(
                body,
                "Lodestar is not shown the bodies of requests: it chooses without the prompt",
                (subject.put(body, "BUFFERED"),),
            )


def answers_wait(subject: Subject) -> Iterator[Fault]:
    """Answers wait for Lodestar, which needs nothing of them here."""
    for decision in subject.decisions():
        headers = mode(decision, "response_header_mode")
        if headers.text != "SKIP" and mode(decision, "response_body_mode").text in ("", "NONE"):
            yield Fault(
                headers,
                "every answer's headers wait for Lodestar, which makes no use of them",
                (subject.put(headers, "SKIP"),),
            )


def mode(on_route: FilterOnRoute, name: str) -> Node:
    """A processing mode as it holds on a route, or where it would be written."""
    return on_route.get("processing_mode", name)


def sees_body(on_route: FilterOnRoute) -> bool:
    return mode(on_route, "request_body_mode").text not in ("", "NONE")


def sees_requests(on_route: FilterOnRoute) -> bool:
    """Whether it is shown anything of a request; headers are, unless that is switched off."""
    return sees_body(on_route) or mode(on_route, "request_header_mode").text != "SKIP"


def sees_answers(on_route: FilterOnRoute) -> bool:
    """Whether the parts of an answer are shown as they come."""
    return mode(on_route, "response_body_mode").text not in ("", "NONE")
