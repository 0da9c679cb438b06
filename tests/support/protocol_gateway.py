"""A gateway in full duplex, as a case of cases.yaml describes it: what it sends, what it gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from envoy_json import add_metadata
from lodestar_extproc import names
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb

FULL_DUPLEX = pb.ProtocolConfiguration(request_body_mode=4, response_body_mode=4)
MESSAGES = (
    *("request_headers", "request_body", "request_trailers"),
    *("response_headers", "response_body", "response_trailers"),
)
ASKED_BY = {
    "objective": "x-llm-d-inference-objective",
    "rewrite": "x-llm-d-model-name-rewrite",
    "session": "x-session-id",
}
REPLY_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Pods:
    """P0, P1 ... by their addresses."""

    addresses: tuple[str, ...]

    def filled_in(self, value: Any) -> Any:
        """*value* with {P0} and {P0.ip} replaced."""
        if isinstance(value, list):
            return [self.filled_in(item) for item in value]
        if isinstance(value, dict):
            return {key: self.filled_in(item) for key, item in value.items()}
        if isinstance(value, str):
            for i, address in enumerate(self.addresses):
                value = value.replace(f"{{P{i}}}", address)
                value = value.replace(f"{{P{i}.ip}}", address.rpartition(":")[0])
        return value

    def named(self, name: str) -> str:
        return self.addresses[int(name.removeprefix("P"))]


def completion(*, prompt: str, model: str, **_: Any) -> str:
    fields = {"max_tokens": 100, "model": model, "prompt": prompt, "temperature": 0}
    return json.dumps(fields, separators=(",", ":"))


def messages(step: Mapping[str, Any]) -> Iterator[pb.ProcessingRequest]:
    """What the gateway sends at *step*."""
    if "ask" not in step:
        yield message(step)
        return
    ask = step["ask"]
    headers = {"hi": "mom", "x-request-id": "test-request-id"}
    headers[":method"], headers[":path"] = "POST", "/v1/completions"
    for name, header in ASKED_BY.items():
        if name in ask:
            headers[header] = ask[name]
    hint = {"subset": ask["subset"]} if "subset" in ask else {}
    yield message({"request_headers": headers, **hint})
    yield message({"request_body": completion(**ask), "end": True, **hint})


def message(step: Mapping[str, Any]) -> pb.ProcessingRequest:
    (kind,) = (name for name in MESSAGES if name in step)
    sent = pb.ProcessingRequest()
    part = getattr(sent, kind)
    if kind.endswith("body"):
        part.body = step[kind].encode() * step.get("repeated", 1)
    else:
        headers = part.headers if kind.endswith("headers") else part.trailers
        for key, value in step[kind].items():
            _add_header(headers, key, value)
    if step.get("end"):
        part.end_of_stream = True
    _add_metadata(sent, step)
    return sent


def _add_header(headers: pb.HeaderMap, key: str, value: Any) -> None:
    """As Envoy does; with {raw, text} as others may."""
    given = value if isinstance(value, dict) else {"raw": value, "text": ""}
    headers.headers.add(
        key=key.encode(), raw_value=given["raw"].encode(), value=given["text"].encode()
    )


def _add_metadata(sent: pb.ProcessingRequest, step: Mapping[str, Any]) -> None:
    if "subset" in step:
        add_metadata(sent, names.SUBSET_NAMESPACE, {names.SUBSET: step["subset"]})
    if step.get("served"):
        add_metadata(sent, names.METADATA_NAMESPACE, {names.SERVED: step["served"]})


class Gateway:
    """One stream to the picker at *target*."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = channel.stream_stream(
            names.PROCESS_METHOD,
            request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )()
        self._began = False

    async def send(self, sent: pb.ProcessingRequest) -> None:
        if not self._began:
            sent.protocol_config.CopyFrom(FULL_DUPLEX)
            self._began = True
        await self._call.write(sent)

    async def reply(self) -> pb.ProcessingResponse:
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            got = await self._call.read()
        assert got is not grpc.aio.EOF, "the stream ended without a reply"
        return got

    async def end(self) -> None:
        """Nothing more may have been said."""
        await self._call.done_writing()
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            assert await self._call.read() is grpc.aio.EOF


def set_headers(mutation: pb.HeaderMutation) -> dict[str, str]:
    """All in raw values, as Envoy wants them."""
    assert all(not option.header.value for option in mutation.set_headers)
    return {o.header.key.decode(): o.header.raw_value.decode() for o in mutation.set_headers}


def check_refusal(got: pb.ProcessingResponse, wanted: Mapping[str, Any]) -> None:
    assert got.WhichOneof("response") == "immediate_response"
    refusal = got.immediate_response
    assert refusal.status.code == wanted["refuse"]
    assert wanted.get("says", "") in json.loads(refusal.body)["error"]["message"]
    assert wanted.get("headers", {}).items() <= set_headers(refusal.headers).items()


def check_choice(got: pb.ProcessingResponse, wanted: Mapping[str, Any], pods: Pods) -> None:
    """In header and metadata alike, on the reply to the headers."""
    assert got.WhichOneof("response") == "request_headers"
    response = got.request_headers.response
    assert response.clear_route_cache
    headers = set_headers(response.header_mutation)
    told = got.dynamic_metadata.fields[names.METADATA_NAMESPACE].struct_value.fields
    assert headers[names.DESTINATION] == told[names.DESTINATION].string_value
    first, *others = headers[names.DESTINATION].split(",")
    assert first == pods.named(wanted["choose"]), f"{first} of {pods.addresses}"
    assert set(others) <= set(pods.addresses) - {first}
    if "fallbacks" in wanted:
        assert others == [pods.named(name) for name in wanted["fallbacks"]]
    assert wanted.get("headers", {}).items() <= headers.items()


async def check_body(
    gateway: Gateway, got: pb.ProcessingResponse, wanted: Mapping[str, Any]
) -> None:
    """One body, in as many parts as its size needs."""
    expected = wanted["body"].encode() * wanted.get("repeated", 1)
    received = b""
    while True:
        streamed = getattr(got, got.WhichOneof("response")).response.body_mutation.streamed_response
        assert len(streamed.body) <= 62_000
        received += streamed.body
        if len(received) >= len(expected):
            break
        assert not streamed.end_of_stream
        got = await gateway.reply()
    assert received == expected
    assert streamed.end_of_stream is wanted.get("end", False)


def check_going_on(got: pb.ProcessingResponse, wanted: Mapping[str, Any]) -> None:
    kind = wanted["go_on"]
    assert got.WhichOneof("response") == kind
    if kind.endswith("headers"):
        mutation = getattr(got, kind).response.header_mutation
        assert set_headers(mutation) == wanted.get("headers", {})


async def check(gateway: Gateway, wanted: Mapping[str, Any], pods: Pods, ask: Any) -> None:
    """The next replies are the *wanted* ones."""
    got = await gateway.reply()
    if "refuse" in wanted:
        check_refusal(got, wanted)
    elif "choose" in wanted:
        check_choice(got, wanted, pods)
    elif "routed" in wanted:
        check_choice(got, {**wanted, "choose": wanted["routed"]}, pods)
        body = completion(prompt=ask["prompt"], model=wanted["model"])
        await check_body(gateway, await gateway.reply(), {"body": body, "end": True})
    elif "body" in wanted:
        await check_body(gateway, got, wanted)
    else:
        check_going_on(got, wanted)
