"""What Envoy sends, bodies and answers, as fuzzing targets: they take any bytes, and check."""

from __future__ import annotations

import json
import random

import numpy as np

from builders import a_request, a_router
from lodestar_extproc.completion import Completion
from lodestar_extproc.extproc import body_reading, wire
from lodestar_extproc.extproc.access_log_service import AccessLogService
from lodestar_extproc.extproc.answer import MAX_DOCUMENT_BYTES, AnswerReader
from lodestar_extproc.extproc.error_boundary import ErrorBoundary
from lodestar_extproc.extproc.events import Reply
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.extproc.transitions import ProtocolError
from lodestar_extproc.request import BLOCK_BYTES, RequestKind
from lodestar_extproc.routing.router import Router
from lodestar_extproc.routing.routers import Routers

BETWEEN_MESSAGES = b"\n\xff\xfe\n"
"""No UTF-8, so it stands in no text; protobuf may hold it, and is then cut in two: no harm."""
KINDS = tuple(RequestKind)
CODINGS = (None, "gzip", "deflate", "identity", "br", "x-unknown")
CONTENT_TYPES = (None, "text/event-stream", "application/json", "text/html", "application/x-ndjson")
DAY_S = 86400.0


class StrictListener:
    """Lets no failure of our own pass."""

    def stream_failed(self, reason: str) -> None:
        assert reason == "protocol", "an internal failure"

    def log_entry(self, _outcome: object) -> None:
        """Counted elsewhere."""

    def log_unreadable(self) -> None:
        """Counted elsewhere."""


PAIRED = frozenset(
    (
        *(RequestKind.RERANK, RequestKind.SCORE, RequestKind.CLASSIFY, RequestKind.POOLING),
        *(RequestKind.UNKNOWN, RequestKind.INVOCATIONS),
    )
)
"""APIs whose bodies may be a query and items."""


def routers_of(router: Router) -> Routers:
    return Routers([router], lambda _router, policy, _cost: no_policy(policy))


def no_policy(name: str | None):
    raise ValueError(f"no policy {name}")


def check_nothing_below_zero(router: Router, at_s: float) -> None:
    snapshot = router.fleet.everything(at_s)
    for name in ("prefill_requests", "prefill_uncached_tokens", "decode_requests", "in_flight"):
        column = getattr(snapshot, name)
        assert np.isfinite(column).all(), f"{name}: {column}"
        assert (column >= 0).all(), f"{name}: {column}"


def check_nothing_open_after_expiry(router: Router, at_s: float) -> None:
    router.expire(at_s + DAY_S)
    assert router.n_open == 0
    assert not router.fleet.everything(at_s + DAY_S).in_flight.any()


def wire_messages(data: bytes) -> None:
    """One stream after another, as the server drives them; the first byte says which is a new one."""
    router = a_router(2)
    routers, exchange, at_s, n_replies = routers_of(router), None, 1.0, 0
    access_log, *messages = [data[:1] < b"\x80", *data[1:].split(BETWEEN_MESSAGES)]
    for message in messages:
        at_s += 0.01
        if not message and exchange is not None:
            exchange.close(at_s)
            exchange = None
            continue
        try:
            parsed = wire.parse(message)
            if exchange is None or exchange.done:
                opening = wire.decode_opening(parsed)
                exchange = Exchange(routers, opening, stream_id="s", access_log=access_log)
            replies = exchange.receive(wire.decode(parsed, at_s, routers.headers))
        except ProtocolError:
            continue
        n_replies += check_replies(replies)
        check_nothing_below_zero(router, at_s)
    assert router.n_open <= len(messages)
    assert n_replies <= 2 * len(messages)
    if exchange is not None:
        exchange.close(at_s)
        assert exchange.done
        assert exchange.request.held.n_bytes == 0
    check_nothing_open_after_expiry(router, at_s)


def check_replies(replies: tuple[Reply, ...]) -> int:
    for reply in replies:
        assert wire.encode(reply)
    return len(replies)


def bodies(data: bytes) -> None:
    """The first byte names the API."""
    kind = KINDS[data[0] % len(KINDS)] if data else RequestKind.CHAT_COMPLETIONS
    body = data[1:]
    try:
        parsed = body_reading.read(body, kind)
    except (body_reading.InvalidRequest, body_reading.OverBudget):
        return
    assert parsed == body_reading.read(body, kind), "it reads the same twice"
    assert 0 <= parsed.text_bytes <= parsed.prompt_bytes
    # A query counts once for each of its items.
    most_items = 1 + body.count(b",") if kind in PAIRED else 1
    most_bytes = 3 * len(body) * most_items
    assert parsed.text_bytes <= most_bytes, "no escape is shorter than a third of its UTF-8"
    assert 0 <= parsed.n_token_ids <= len(body)
    assert 0 <= parsed.n_media <= len(body)
    assert BLOCK_BYTES * len(parsed.block_hashes) <= parsed.prompt_bytes + 64 * len(body)
    assert parsed.max_output_tokens is None or parsed.max_output_tokens > 0
    json.dumps(parsed.model).encode()


def answers(data: bytes) -> None:
    """The first byte names the headers, the second draws the cuts."""
    if len(data) < 2:
        return
    headers = headers_of(data[0])
    whole, body = AnswerReader(headers), data[2:]
    whole.feed(body)
    whole.finish()
    cuts, at = random.Random(data[1]), 0
    parts = AnswerReader(headers)
    while at < len(body):
        size = cuts.choice((1, 1, 2, 3, 7, 64, 1000))
        parts.feed(body[at : at + size])
        at += size
        assert parts.held_bytes <= 2 * MAX_DOCUMENT_BYTES
    parts.finish()
    assert seen_in(parts) == seen_in(whole), "chunks change what is read"
    counted = (whole.usage.prompt_tokens, whole.usage.cached_tokens, whole.usage.output_tokens)
    assert all(n is None or n >= 0 for n in counted), counted


def headers_of(number: int) -> dict[str, str]:
    coding = CODINGS[number % len(CODINGS)]
    content_type = CONTENT_TYPES[number // len(CODINGS) % len(CONTENT_TYPES)]
    named = {"content-encoding": coding, "content-type": content_type}
    return {name: value for name, value in named.items() if value is not None}


def seen_in(reader: AnswerReader) -> tuple[object, ...]:
    return (
        reader.first_token,
        reader.failed,
        reader.usage,
        reader.kept,
        reader.form_at_end,
        reader.prefill_is_over,
    )


def access_log(data: bytes) -> None:
    """Messages of entries, beside two requests that are open; one of them ends by its id."""
    router = a_router(2)
    routers, told = routers_of(router), []
    for stream_id in ("abc", "def"):
        router.route(a_request(), request_id="r", stream_id=stream_id, at_s=1.0)

    def complete(completion: Completion) -> None:
        told.append(completion)
        routers.complete(completion)
        check_nothing_below_zero(router, 2.0)

    listener = StrictListener()
    service = AccessLogService(complete, listener, ErrorBoundary(listener), lambda: 2.0)
    for message in data.split(BETWEEN_MESSAGES):
        service.read(message)
    assert router.n_open >= 2 - len(told)
    for completion in told:
        times_s = (completion.ttft_s, completion.duration_s, completion.retry_after_s)
        assert all(t is None or 0 <= t < 1e12 for t in times_s), times_s
        assert completion.attempts is None or completion.attempts > 0
    check_nothing_open_after_expiry(router, 2.0)
