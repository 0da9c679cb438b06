"""Translates Envoy's protobuf messages into events, and replies into protobuf messages.

It keeps no state and takes no decision. The names it reads and writes stand in `names.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lodestar_extproc.config.holding import WAIT_MARGIN_S
from lodestar_extproc.extproc.context import (
    attribute,
    header_value,
    message_metadata,
    metadata_texts,
    response_code,
    subset_in,
)
from lodestar_extproc.extproc.events import (
    BodyMode,
    BodyPart,
    Continue,
    Event,
    Headers,
    Opening,
    Phase,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseEvent,
    ResponseHeaders,
    ResponseTrailers,
    RouteTo,
    Wait,
)
from lodestar_extproc.extproc.transitions import ProtocolError
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2
from lodestar_extproc.names import (
    CLUSTER_NAME,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    DECISION_ID,
    DESTINATION,
    METADATA_NAMESPACE,
    METHOD,
    MODEL_REWRITE_HEADERS,
    OBJECTIVE_HEADERS,
    PATH,
    PREDICTED_TTFT,
    REQUEST_ID,
    RETRY_AFTER,
    SERVED,
    SESSION_HEADERS,
    STREAM_ID,
    TEST_SELECTION,
    TPOT_SLO_HEADERS,
    TTFT_SLO_HEADERS,
    UPSTREAM_ADDRESS,
)
from lodestar_extproc.request import Subset

_READ_HEADERS = frozenset(
    (
        *(METHOD, PATH, CONTENT_LENGTH, REQUEST_ID, TEST_SELECTION),
        *OBJECTIVE_HEADERS,
        *MODEL_REWRITE_HEADERS,
        *SESSION_HEADERS,
        *TTFT_SLO_HEADERS,
        *TPOT_SLO_HEADERS,
    )
)
_READ_ANSWER_HEADERS: Mapping[bytes, str] = MappingProxyType(
    {name.encode(): name for name in (CONTENT_TYPE, CONTENT_ENCODING, RETRY_AFTER)}
)
_RESPONSE_EVENTS: Mapping[str, type[ResponseEvent]] = MappingProxyType(
    {
        "response_headers": ResponseHeaders,
        "response_body": ResponseBody,
        "response_trailers": ResponseTrailers,
    }
)


def read(
    data: bytes, at_s: float, more_headers: frozenset[str] = frozenset()
) -> tuple[Event, Opening]:
    """What *data* says, and of its stream if it is the first there; else as of `decode`."""
    message = parse(data)
    return decode(message, at_s, more_headers), decode_opening(message)


def parse(data: bytes) -> envoy_pb2.ProcessingRequest:
    """Parse *data* as a message of Envoy's.

    Raises:
        ProtocolError: there is none.
    """
    message = envoy_pb2.ProcessingRequest()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise ProtocolError("bytes that are no message") from None
    return message


def decode_opening(message: envoy_pb2.ProcessingRequest) -> Opening:
    """Read what a stream's first message says of all that follow."""
    pool = attribute(message, CLUSTER_NAME)
    if not message.HasField("protocol_config"):
        return Opening(observing=message.observability_mode, pool=pool)
    config = message.protocol_config
    return Opening(
        observing=message.observability_mode,
        request_body_mode=_body_mode(config.request_body_mode),
        response_body_mode=_body_mode(config.response_body_mode),
        pool=pool,
    )


def decode(
    message: envoy_pb2.ProcessingRequest, at_s: float, more_headers: frozenset[str] = frozenset()
) -> Event:
    """Translate *message* into an event.

    Args:
        at_s: monotonic seconds.
        more_headers: names, beside our own, that settings ask for.

    Raises:
        ProtocolError: it holds none that is known here.
    """
    name = message.WhichOneof("request")
    if name == "request_body":
        body = message.request_body
        end = body.end_of_stream or body.end_of_stream_without_message
        subset = subset_in(message.metadata_context)
        return RequestBody(at_s=at_s, body=body.body, end_of_stream=end, subset=subset)
    if name == "request_headers":
        subset = subset_in(message.metadata_context)
        return request_headers(message.request_headers, at_s, more_headers, subset)
    if name == "request_trailers":
        return RequestTrailers(
            at_s=at_s, end_of_stream=True, subset=subset_in(message.metadata_context)
        )
    if name is None:
        raise ProtocolError("a message without content, or of a kind unknown here")
    return _decode_response(message, name, at_s)


def request_headers(
    given: envoy_pb2.HttpHeaders, at_s: float, more_headers: frozenset[str], subset: Subset | None
) -> RequestHeaders:
    """The event of a request's headers; arguments as of `decode`."""
    return RequestHeaders(
        at_s=at_s,
        headers=_read_headers(given.headers, _request_names(more_headers)),
        end_of_stream=given.end_of_stream,
        subset=subset,
    )


def _decode_response(message: envoy_pb2.ProcessingRequest, name: str, at_s: float) -> Event:
    part: Any = getattr(message, name)
    fields: dict[str, Any] = {"at_s": at_s}
    if name == "response_body":
        fields["body"] = part.body
        fields["end_of_stream"] = part.end_of_stream or part.end_of_stream_without_message
    else:
        fields["end_of_stream"] = name == "response_trailers" or part.end_of_stream
    if name == "response_headers":
        fields["metadata"] = metadata_texts(message)
        fields["headers"] = _read_headers(message.response_headers.headers, _READ_ANSWER_HEADERS)
    fields["decision_id"] = message_metadata(message, DECISION_ID) or ""
    fields["served"] = message_metadata(message, SERVED) or attribute(message, UPSTREAM_ADDRESS)
    fields["response_code"] = response_code(message)
    return _RESPONSE_EVENTS[name](**fields)


def encode(reply: Reply) -> bytes:
    """Translate *reply* into a message to Envoy."""
    if isinstance(reply, Continue) and not reply.headers and not reply.stream_id:
        return _CONTINUE[reply.phase]
    message = envoy_pb2.ProcessingResponse()
    if isinstance(reply, RouteTo):
        _set_route(message, reply)
    elif isinstance(reply, Wait):
        wait_ms = round(1e3 * (reply.for_s + WAIT_MARGIN_S))
        message.override_message_timeout.FromMilliseconds(wait_ms)
    elif isinstance(reply, Continue):
        _go_on(message, reply.phase)
        if reply.headers:
            _set_headers(getattr(message, reply.phase).response.header_mutation, reply.headers)
        if reply.stream_id:
            _told(message)[STREAM_ID].string_value = reply.stream_id
    elif isinstance(reply, BodyPart):
        part: Any = getattr(message, reply.phase)
        streamed = part.response.body_mutation.streamed_response
        streamed.body = bytes(reply.body)
        streamed.end_of_stream = reply.end_of_stream
    else:
        immediate = message.immediate_response
        immediate.status.code = reply.status
        immediate.body = reply.body
        immediate.details = reply.details
        _set_headers(immediate.headers, (("content-type", "application/json"), *reply.headers))
    return _serialize(message)


def _set_route(message: envoy_pb2.ProcessingResponse, reply: RouteTo) -> None:
    _go_on(message, reply.phase)
    if reply.body is not None:
        replaced: Any = getattr(message, reply.phase).response
        replaced.body_mutation.body = reply.body
        # Envoy answers 500 where the content-length is not the length of the new body.
        _set_headers(replaced.header_mutation, ((CONTENT_LENGTH, str(len(reply.body))),))
    told = _told(message)
    told[DECISION_ID].string_value = reply.decision_id
    if reply.predicted_ttft_s is not None:
        told[PREDICTED_TTFT].string_value = f"{1e3 * reply.predicted_ttft_s:.0f}"
    destination = ",".join(reply.addresses)
    if destination:
        told[DESTINATION].string_value = destination
    if reply.phase is not Phase.REQUEST_TRAILERS:
        # At the trailers the headers have left: only metadata can still carry the addresses.
        response: Any = getattr(message, reply.phase).response
        chosen = ((DESTINATION, destination),) if destination else ()
        _set_headers(response.header_mutation, (*chosen, *reply.headers))
        # A gateway that routes by the destination has to route anew; others ignore it.
        response.clear_route_cache = bool(destination) and reply.phase is Phase.REQUEST_HEADERS


def _told(message: envoy_pb2.ProcessingResponse) -> Any:
    """Our namespace of the dynamic metadata that Envoy takes up from *message*."""
    return message.dynamic_metadata.fields[METADATA_NAMESPACE].struct_value.fields


def _set_headers(mutation: envoy_pb2.HeaderMutation, headers: Headers) -> None:
    for name, value in headers:
        option = mutation.set_headers.add(
            append_action=envoy_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        )
        option.header.key = name.encode()
        option.header.raw_value = value.encode()


def _continue(phase: Phase) -> bytes:
    message = envoy_pb2.ProcessingResponse()
    _go_on(message, phase)
    return _serialize(message)


def _go_on(message: envoy_pb2.ProcessingResponse, phase: Phase) -> None:
    part: Any = getattr(message, phase)
    if phase in (Phase.REQUEST_TRAILERS, Phase.RESPONSE_TRAILERS):
        part.SetInParent()
    else:
        part.response.SetInParent()


def _serialize(message: envoy_pb2.ProcessingResponse) -> bytes:
    data: bytes = message.SerializeToString()
    return data


_CONTINUE: Mapping[Phase, bytes] = MappingProxyType({phase: _continue(phase) for phase in Phase})


def _read_headers(given: envoy_pb2.HeaderMap, wanted: Mapping[bytes, str]) -> Mapping[str, str]:
    """The *wanted* headers; where a name comes twice, the first value."""
    headers: dict[str, str] = {}
    for header in given.headers:
        key = header.key
        name = wanted.get(key) or wanted.get(key.lower())
        if name is not None and name not in headers:
            headers[name] = header_value(header)
    return headers


@cache
def _request_names(more_headers: frozenset[str]) -> Mapping[bytes, str]:
    """What is read of a request, by how it is sent; settings change it now and then."""
    return {name.encode(): name for name in _READ_HEADERS | more_headers}


def _body_mode(number: int) -> BodyMode:
    """The mode of that number; Envoy's default for a number that is unknown here."""
    try:
        return BodyMode(number)
    except ValueError:
        return BodyMode.NONE
