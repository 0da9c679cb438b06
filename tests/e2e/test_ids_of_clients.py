"""What clients put into ids and headers costs nobody else's request its end."""

from __future__ import annotations

import asyncio
import time

import pytest

from envoy_process import connection_manager, patient
from lodestar_extproc.completion import Outcome
from stack import CHAT, chat, running_stack
from waiting import until
from wheels import WHEELS

pytestmark = [pytest.mark.truth, pytest.mark.asyncio(loop_scope="session")]

ODD_IDS = (b"caf\xe9", b"\xff\xfe", b"\x80", b"\xed\xa0\x80", b"ok-\xc3\x28-ok")
"""Bytes that HTTP allows in a header, and that are no UTF-8."""


async def raw(stack, method: str, path: str, body: bytes = b"", **headers: bytes) -> bytes:
    """What Envoy answers to a request of these bytes, which no HTTP client would send."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(stack.envoy.url.rpartition(":")[2])
    )
    lines = [
        f"{method} {path} HTTP/1.1".encode(),
        b"host: x",
        b"connection: close",
        b"content-length: %d" % len(body),
        *(name.replace("_", "-").encode() + b": " + value for name, value in headers.items()),
    ]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    return answer


def ended(stack) -> set[str]:
    return {c.decision_id for c in stack.routers.completions}


def failures(stack) -> list[tuple]:
    return [what for what in stack.listener.heard if what[0] == "failed" or "unreadable" in what]


async def test_headers_of_any_bytes_lose_no_end(stack):
    for engine in stack.engines:
        engine.prefill_s = 0.05
    normal = [asyncio.create_task(stack.post(chat())) for _ in range(20)]
    answers = []
    for _ in range(4):
        for odd in ODD_IDS:
            answers.append(await raw(stack, "GET", "/v1/models", x_request_id=odd))
            answers.append(
                await raw(
                    stack,
                    "POST",
                    CHAT,
                    chat(),
                    x_request_id=odd,
                    user_agent=odd,
                    referer=odd,
                    content_type=b"application/json",
                )
            )
    await asyncio.gather(*normal)
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    made = {f"pool.{stack.routers.n_decisions - i}" for i in range(40)}
    await until(lambda: made <= ended(stack))
    assert {c.outcome for c in stack.routers.completions} == {Outcome.SERVED}
    assert not failures(stack)


async def test_an_id_that_many_requests_share_ends_none_of_the_others(stack):
    for engine in stack.engines:
        engine.prefill_s, engine.between_tokens_s = 0.0, 0.3
    running = [asyncio.create_task(stack.post(chat(), **{"x-request-id": "one"})) for _ in range(6)]
    await until(lambda: len(stack.routers.first_tokens) == 6)
    for path in ("/v1/models", "/health", "/v1/nowhere"):
        await raw(stack, "GET", path, x_request_id=b"one")
    await raw(stack, "POST", "/tokenize", b"{}", x_request_id=b"one")
    # Their ends are in the log, and its next batch.
    await until(lambda: stack.listener.count("log", None) >= 4)
    assert not stack.routers.completions
    await asyncio.gather(*running)
    await until(lambda: len(ended(stack)) == 6)
    assert len(stack.routers.completions) == 6


@pytest.mark.parametrize("wheel", WHEELS)
async def test_a_decision_that_came_too_late_is_given_back_by_our_own_id(tmp_path, wheel):
    async with running_stack(tmp_path, wheel.file, binary=wheel.binary) as stack:
        decide = stack.routers.route

        def decide_late(*arguments, **how):
            time.sleep(1.0)
            return decide(*arguments, **how)

        stack.routers.route = decide_late
        status, _ = await stack.post(chat(), **{"x-request-id": "anything"})
        assert status == 200
        (end,) = await until(lambda: stack.routers.completions)
        assert (end.decision_id, end.stream_id) == ("", stack.routers.stream_ids[0])
        assert stack.routers.n_decisions == 1


def takes_headers_into_metadata(config) -> None:
    """A filter before ours that writes what a client sent beside our own choice, as gateways do."""
    patient(config)
    rule = {"metadata_namespace": "envoy.lb", "key": "tenant", "type": "STRING"}
    connection_manager(config)["http_filters"].insert(
        0,
        {
            "name": "tenant",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config",
                "request_rules": [{"header": "x-tenant", "on_header_present": rule}],
            },
        },
    )


@pytest.mark.parametrize("wheel", WHEELS)
async def test_metadata_of_any_bytes_ends_no_stream(tmp_path, wheel):
    edit = takes_headers_into_metadata
    async with running_stack(tmp_path, wheel.file, binary=wheel.binary, edit=edit) as stack:
        for odd in ODD_IDS:
            answer = await raw(
                stack, "POST", CHAT, chat(), x_tenant=odd, content_type=b"application/json"
            )
            assert answer.startswith(b"HTTP/1.1 200")
        await until(lambda: len(ended(stack)) == len(ODD_IDS))
        assert {event.decision_id for event in stack.routers.first_tokens} == ended(stack)
        assert not failures(stack)
