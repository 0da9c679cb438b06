"""Messages to events, replies to messages: written and read back by Envoy's own types."""

from __future__ import annotations

import base64

import pytest

import envoy_types
from envoy_json import add_metadata
from lodestar_extproc import names
from lodestar_extproc.extproc import wire
from lodestar_extproc.extproc.events import (
    BodyMode,
    BodyPart,
    Continue,
    Phase,
    Reject,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    RouteTo,
)
from lodestar_extproc.extproc.transitions import ProtocolError
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2
from lodestar_extproc.request import Subset

METADATA = {"metadataContext": {"filterMetadata": {"envoy.lb": {names.DECISION_ID: "pool.1"}}}}
ATTRIBUTES = {
    "attributes": {
        names.ATTRIBUTES_NAMESPACE: {"upstream.address": "10.0.0.1:80", "response.code": 200.0}
    }
}
SEEN = {"decision_id": "pool.1", "served": "10.0.0.1:80", "response_code": 200}


def header(key: str, raw: str = "", text: str = "") -> dict:
    values = {"value": text, "rawValue": base64.b64encode(raw.encode()).decode()}
    return {"key": key} | {name: value for name, value in values.items() if value}


def message_of(**fields) -> envoy_pb2.ProcessingRequest:
    """As Envoy would send it."""
    return envoy_pb2.ProcessingRequest.FromString(
        bytes(envoy_types.ProcessingRequest.from_dict(fields))
    )


def sent(reply) -> dict:
    """As Envoy would read it."""
    return envoy_types.ProcessingResponse.parse(wire.encode(reply)).to_dict()


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        (
            {"requestHeaders": {"headers": {"headers": [header(":path", "/v1")]}}},
            RequestHeaders(at_s=1.0, headers={":path": "/v1"}),
        ),
        ({"requestHeaders": {"endOfStream": True}}, RequestHeaders(at_s=1.0, end_of_stream=True)),
        ({"requestBody": {"body": "YQ=="}}, RequestBody(at_s=1.0, body=b"a")),
        (
            {"requestBody": {"body": "YQ==", "endOfStream": True}},
            RequestBody(at_s=1.0, body=b"a", end_of_stream=True),
        ),
        (
            {"requestBody": {"endOfStreamWithoutMessage": True}},
            RequestBody(at_s=1.0, end_of_stream=True),
        ),
        ({"requestTrailers": {}}, RequestTrailers(at_s=1.0, end_of_stream=True)),
        (
            {"responseHeaders": {"headers": {"headers": [header(":status", "404")]}}},
            ResponseHeaders(at_s=1.0, response_code=404),
        ),
        (
            {"responseBody": {"body": "YQ=="}} | METADATA | ATTRIBUTES,
            ResponseBody(at_s=1.0, body=b"a", **SEEN),
        ),
        (
            {"responseBody": {"endOfStream": True}},
            ResponseBody(at_s=1.0, end_of_stream=True),
        ),
        (
            {"responseTrailers": {}} | METADATA,
            ResponseTrailers(at_s=1.0, end_of_stream=True, decision_id="pool.1"),
        ),
    ],
)
def test_a_message_is_an_event(fields, event):
    assert wire.decode(message_of(**fields), 1.0) == event


def test_every_kind_of_message_is_decoded():
    (oneof,) = envoy_pb2.ProcessingRequest.DESCRIPTOR.oneofs
    decoded = set()
    for field in oneof.fields:
        message = envoy_pb2.ProcessingRequest()
        getattr(message, field.name).SetInParent()
        decoded.add(wire.decode(message, 0.0).phase)
    assert decoded == set(Phase) == {field.name for field in oneof.fields}


def test_an_empty_message_is_an_error():
    with pytest.raises(ProtocolError, match="without content"):
        wire.decode(envoy_pb2.ProcessingRequest(), 0.0)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([header("x-request-id", raw="raw", text="text")], "raw"),
        ([header("x-request-id", text="text")], "text"),
        ([header("X-Request-Id", raw="raw")], "raw"),
        ([header("x-request-id", raw="first"), header("x-request-id", raw="second")], "first"),
        ([header("authorization", raw="secret")], None),
    ],
)
def test_headers_are_read_raw_first_and_only_by_known_names(given, read):
    event = wire.decode(message_of(requestHeaders={"headers": {"headers": given}}), 0.0)
    assert event.headers == ({} if read is None else {"x-request-id": read})


def test_a_header_that_is_no_utf8_is_still_read():
    message = envoy_pb2.ProcessingRequest()
    message.request_headers.headers.headers.add(key=b":path", raw_value=b"/\xff")
    assert wire.decode(message, 0.0).headers == {":path": "/\ufffd"}


@pytest.mark.parametrize("odd", [b"caf\xe9", b"\xff", b"\xed\xa0\x80", b"\x00"])
def test_any_bytes_in_any_text_are_a_message(odd):
    """Other filters put what clients send into metadata and attributes."""
    message = envoy_pb2.ProcessingRequest()
    header = message.request_headers.headers.headers.add(key=odd, value=odd)
    message.request_headers.headers.headers.add(key=b"x-request-id", value=odd)
    message.request_headers.headers.headers.add(key=b":path", raw_value=b"/v1")
    for namespace in ("envoy.lb", "other"):
        add_metadata(message, namespace, {names.DECISION_ID: odd})
    message.metadata_context.filter_metadata.add(key=odd).value.fields.add(key=odd)
    message.attributes.add(key=odd).value.fields.add(key=odd).value.string_value = odd

    event = wire.decode(wire.parse(message.SerializeToString()), 0.0)

    assert event.headers[":path"] == "/v1"
    assert event.headers["x-request-id"] == odd.decode("utf-8", "replace")
    assert header.key == odd


def test_metadata_however_deep_is_a_message():
    deep = b""
    for _ in range(200):  # a struct in a struct: protobuf itself refuses more than 100
        value = b"\x2a" + _varint(len(deep)) + deep
        entry = b"\x0a\x01k\x12" + _varint(len(value)) + value
        deep = b"\x0a" + _varint(len(entry)) + entry
    namespace = b"\x0a\x01n\x12" + _varint(len(deep)) + deep
    context = b"\x0a" + _varint(len(namespace)) + namespace
    given = envoy_pb2.ProcessingRequest()
    given.request_headers.SetInParent()
    data = given.SerializeToString() + b"\x42" + _varint(len(context)) + context
    assert wire.decode(wire.parse(data), 0.0).headers == {}


def _varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes((low | 0x80,)) + _varint(high) if high else bytes((low,))


@pytest.mark.parametrize("value", ["10.0.0.2:80", 5.0, True, None, ["a"]])
def test_metadata_of_another_type_is_no_decision_id(value):
    metadata = {"filterMetadata": {"envoy.lb": {names.DECISION_ID: value}, "other": {}}}
    event = wire.decode(message_of(responseBody={}, metadataContext=metadata), 0.0)
    assert event.decision_id == (value if isinstance(value, str) else "")


def test_the_gateways_own_word_on_who_served_comes_first():
    metadata = {"filterMetadata": {"envoy.lb": {names.SERVED: "10.0.0.9:80"}}}
    message = message_of(responseBody={}, metadataContext=metadata, **ATTRIBUTES)
    assert wire.decode(message, 0.0).served == "10.0.0.9:80"


@pytest.mark.parametrize("code", [float("nan"), float("inf"), 0.0, -0.0])
def test_an_odd_response_code_is_unknown(code):
    attributes = {names.ATTRIBUTES_NAMESPACE: {"response.code": 0.0}}
    message = message_of(responseBody={}, attributes=attributes)
    message.attributes[0].value.fields[0].value.number_value = code
    assert wire.decode(message, 0.0).response_code is None


@pytest.mark.parametrize("mode", list(BodyMode))
def test_the_first_message_tells_the_modes(mode):
    opening = wire.decode_opening(
        message_of(
            requestHeaders={},
            protocolConfig={"requestBodyMode": mode.name, "responseBodyMode": mode.name},
            attributes={names.ATTRIBUTES_NAMESPACE: {names.CLUSTER_NAME: "engines"}},
        )
    )
    assert (opening.request_body_mode, opening.response_body_mode) == (mode, mode)
    assert opening.pool == "engines"
    assert not opening.observing


def test_an_observer_says_so():
    opening = wire.decode_opening(message_of(responseBody={}, observabilityMode=True))
    assert opening.observing
    assert opening.pool is None


def test_a_mode_of_the_future_is_none():
    message = envoy_pb2.ProcessingRequest()
    message.protocol_config.request_body_mode = 99
    assert wire.decode_opening(message).request_body_mode is BodyMode.NONE


@pytest.mark.parametrize("phase", [Phase.REQUEST_HEADERS, Phase.REQUEST_BODY])
def test_a_choice_is_header_and_metadata_alike(phase):
    reply = sent(RouteTo(phase, ("10.0.0.1:80", "10.0.0.2:80"), "pool.1"))
    part = "requestHeaders" if phase is Phase.REQUEST_HEADERS else "requestBody"
    # Only while the headers are held can a new route still be found for them.
    cleared = {"clearRouteCache": True} if phase is Phase.REQUEST_HEADERS else {}
    assert reply == {
        part: {
            "response": cleared
            | {
                "headerMutation": {
                    "setHeaders": [
                        {
                            "header": header(names.DESTINATION, "10.0.0.1:80,10.0.0.2:80"),
                            "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    ]
                }
            }
        },
        "dynamicMetadata": {
            "envoy.lb": {
                names.DESTINATION: "10.0.0.1:80,10.0.0.2:80",
                names.DECISION_ID: "pool.1",
            }
        },
    }


def test_a_choice_may_bring_a_body_in_place_of_the_requests():
    reply = sent(RouteTo(Phase.REQUEST_BODY, ("10.0.0.1:80",), "pool.1", body=b"{}"))
    response = reply["requestBody"]["response"]
    assert response["bodyMutation"] == {"body": "e30="}
    # Without its length Envoy answers 500.
    set_headers = [each["header"] for each in response["headerMutation"]["setHeaders"]]
    assert header("content-length", "2") in set_headers


def test_the_headers_that_settings_ask_for_are_read_too():
    message = envoy_pb2.ProcessingRequest()
    for name in ("X-Chat", "x-other"):
        message.request_headers.headers.headers.add(key=name.encode(), raw_value=b"a")
    assert wire.decode(message, 0.0, frozenset(("x-chat",))).headers == {"x-chat": "a"}


@pytest.mark.parametrize(
    "phase", [Phase.REQUEST_HEADERS, Phase.REQUEST_BODY, Phase.REQUEST_TRAILERS]
)
def test_a_choice_left_to_envoy_is_the_decisions_id_and_nothing_else(phase):
    message = envoy_pb2.ProcessingResponse.FromString(wire.encode(RouteTo(phase, (), "pool.1")))
    told = message.dynamic_metadata.fields[names.METADATA_NAMESPACE].struct_value.fields
    assert {key: value.string_value for key, value in told.items()} == {names.DECISION_ID: "pool.1"}
    message.ClearField("dynamic_metadata")
    assert message.SerializeToString() == wire.encode(Continue(phase))


def test_a_choice_at_the_trailers_is_metadata_only():
    reply = sent(RouteTo(Phase.REQUEST_TRAILERS, ("10.0.0.1:80",), "pool.1"))
    assert reply["requestTrailers"] == {}
    assert reply["dynamicMetadata"]["envoy.lb"][names.DESTINATION] == "10.0.0.1:80"


@pytest.mark.parametrize("phase", list(Phase))
def test_going_on_answers_the_same_part(phase):
    message = envoy_pb2.ProcessingResponse.FromString(wire.encode(Continue(phase)))
    assert message.WhichOneof("response") == phase
    assert not message.HasField("dynamic_metadata")


def test_a_rejection_is_a_json_answer():
    reply = sent(Reject(400, b"{}", "why"))["immediateResponse"]
    assert reply["status"] == {"code": "BadRequest"}
    assert reply["body"] == "e30="
    assert reply["details"] == "why"
    assert reply["headers"]["setHeaders"][0]["header"]["key"] == "content-type"


# -- what the Endpoint Picker protocol adds -----------------------------------------------------


def hinted(hint, part="requestHeaders") -> dict:
    namespaces = {names.SUBSET_NAMESPACE: {names.SUBSET: hint}}
    return {part: {}, "metadataContext": {"filterMetadata": namespaces}}


@pytest.mark.parametrize("part", ["requestHeaders", "requestBody", "requestTrailers"])
@pytest.mark.parametrize(
    ("hint", "named"),
    [
        (["10.0.0.1:80", "10.0.0.2"], {"10.0.0.1:80", "10.0.0.2"}),
        ("10.0.0.1:80, ,10.0.0.2 ", {"10.0.0.1:80", "10.0.0.2"}),
        (["10.0.0.1:80, 10.0.0.2"], {"10.0.0.1:80", "10.0.0.2"}),
        ([], set()),
        ("", set()),
        (None, set()),
        (7, set()),
    ],
)
def test_a_subset_is_read_in_all_its_forms(part, hint, named):
    event = wire.decode(message_of(**hinted(hint, part)), 0.0)
    assert event.subset == Subset(frozenset(named))


@pytest.mark.parametrize("more", [{}, METADATA, {"metadataContext": {}}])
def test_without_the_key_there_is_no_subset(more):
    assert wire.decode(message_of(requestHeaders={}, **more), 0.0).subset is None


def test_who_served_is_read_from_metadata_before_attributes():
    metadata = {"metadataContext": {"filterMetadata": {"envoy.lb": {names.SERVED: "10.0.0.2:80"}}}}
    event = wire.decode(message_of(responseHeaders={}, **(ATTRIBUTES | metadata)), 0.0)
    assert event.served == "10.0.0.2:80"
    assert event.metadata == {names.SERVED: "10.0.0.2:80"}


@pytest.mark.parametrize("phase", [Phase.REQUEST_BODY, Phase.RESPONSE_BODY])
@pytest.mark.parametrize("end", [False, True])
def test_a_part_of_a_body_goes_back_as_it_came(phase, end):
    part = "requestBody" if phase is Phase.REQUEST_BODY else "responseBody"
    streamed = {"body": "YQ=="} | ({"endOfStream": True} if end else {})
    mutation = {"bodyMutation": {"streamedResponse": streamed}}
    assert sent(BodyPart(phase, b"a", end)) == {part: {"response": mutation}}


@pytest.mark.parametrize(
    ("reply", "place"),
    [
        (Continue(Phase.RESPONSE_HEADERS, (("x-a", "b"),)), ("responseHeaders", "response")),
        (
            RouteTo(Phase.REQUEST_HEADERS, ("h:1",), "p.1", (("x-a", "b"),)),
            ("requestHeaders", "response"),
        ),
        (Reject(503, b"", "why", (("x-a", "b"),)), ("immediateResponse", "")),
    ],
)
def test_headers_are_set_as_raw_values(reply, place):
    message = sent(reply)
    part = message[place[0]][place[1]] if place[1] else message[place[0]]
    mutation = part["headers"] if "headers" in part else part["headerMutation"]
    (option,) = [o for o in mutation["setHeaders"] if o["header"]["key"] == "x-a"]
    assert option["header"] == header("x-a", raw="b")
