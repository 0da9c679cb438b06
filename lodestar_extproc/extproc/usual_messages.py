"""UsualMessages: reads what Envoy sends with most requests without parsing all of it.

A message is its content, which comes first, and beside it metadata and a tail that is the same for
each message of a filter: the tail is read once, the body is cut out of the bytes. Whatever is not
so is read by `wire.py`, which is the reference: both read the same of every message.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lodestar_extproc.extproc import wire
from lodestar_extproc.extproc.context import (
    attribute,
    metadata_value,
    response_code,
    subset_in,
)
from lodestar_extproc.extproc.events import (
    Event,
    Opening,
    RequestBody,
    ResponseBody,
)
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2
from lodestar_extproc.names import DECISION_ID, SERVED, UPSTREAM_ADDRESS

MAX_TAILS = 64
"""Different ones: a filter, a route's cluster, an endpoint and a status make one. A judgement."""
MAX_TAIL_BYTES = 1024
"""A longer one is no usual one."""
VIEWED_BYTES = 256 * 2**10
"""A body from here on is left where it lies. A judgement: 0.1 ms to copy."""
# Tags of protobuf: the number of a field and its kind, 2 for bytes and 0 for a number.
_REQUEST_HEADERS, _REQUEST_BODY, _RESPONSE_BODY = 0x12, 0x22, 0x2A
_METADATA, _BODY, _END = b"\x42", 0x0A, b"\x10\x01"


class Tail(NamedTuple):
    """What stands behind content and metadata."""

    opening: Opening
    served: str | None
    response_code: int | None


class UsualMessages:
    """Remembers the tails that it has read."""

    def __init__(self) -> None:
        self._tails: dict[bytes, Tail] = {}

    def read(self, data: bytes, at_s: float, more_headers: frozenset[str]) -> tuple[Event, Opening]:
        """What *data* says; and of the stream, if it is the first message there.

        Args:
            at_s: monotonic seconds.
            more_headers: names, beside our own, that settings ask for.

        Raises:
            ProtocolError: it is no message, or of a kind unknown here.
        """
        return self.usual(data, at_s, more_headers) or wire.read(data, at_s, more_headers)

    def usual(
        self, data: bytes, at_s: float, more_headers: frozenset[str]
    ) -> tuple[Event, Opening] | None:
        """The same; None where *data* is no usual message."""
        try:
            kind = data[0]
            begin, end = _extent(data, 1)
            metadata, rest = b"", end
            if data[end : end + 1] == _METADATA:
                metadata_begin, rest = _extent(data, end + 1)
                metadata = data[metadata_begin:rest]
            told = envoy_pb2.Metadata.FromString(metadata)
            tail = self._tail(data[rest:])
            if tail is None:
                return None
            if kind == _REQUEST_HEADERS:
                headers = envoy_pb2.HttpHeaders.FromString(data[begin:end])
                subset = subset_in(told) if metadata else None
                return wire.request_headers(headers, at_s, more_headers, subset), tail.opening
            body = _body(data, begin, end) if kind in (_REQUEST_BODY, _RESPONSE_BODY) else None
            if body is None:
                return None
            begin, end, is_last = body
            if kind == _RESPONSE_BODY:
                part = data[begin:end]
                return _answer(part, told, tail, at_s=at_s, is_last=is_last), tail.opening
            is_long = end - begin >= VIEWED_BYTES
            content = memoryview(data)[begin:end] if is_long else data[begin:end]
            subset = subset_in(told) if metadata else None
            event = RequestBody(at_s=at_s, body=content, end_of_stream=is_last, subset=subset)
        except (DecodeError, IndexError):
            return None
        return event, tail.opening

    def _tail(self, data: bytes) -> Tail | None:
        known = self._tails.get(data)
        if known is not None or len(data) > MAX_TAIL_BYTES:
            return known
        message = envoy_pb2.ProcessingRequest.FromString(data)
        if message.WhichOneof("request") is not None or message.HasField("metadata_context"):
            return None
        opening, served = wire.decode_opening(message), attribute(message, UPSTREAM_ADDRESS)
        if len(self._tails) >= MAX_TAILS:
            self._tails.clear()
        tail = self._tails[data] = Tail(opening, served, response_code(message))
        return tail


def _extent(data: bytes, at: int) -> tuple[int, int]:
    """Where what follows its length at *at* begins and ends.

    Raises:
        IndexError: not within *data*.
    """
    n_bytes, shift = data[at], 7
    if n_bytes >= 0x80:
        n_bytes &= 0x7F
        while True:
            at += 1
            byte = data[at]
            n_bytes |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
    if at + 1 + n_bytes > len(data):
        raise IndexError(n_bytes)
    return at + 1, at + 1 + n_bytes


def _body(data: bytes, begin: int, end: int) -> tuple[int, int, bool] | None:
    """Where the bytes of an HttpBody begin and end, and whether it is the last part.

    None where it is no usual one.
    """
    if begin == end or data[begin] != _BODY:
        return None
    body_begin, body_end = _extent(data, begin + 1)
    is_last = data[body_end:end] == _END
    if body_end + (len(_END) if is_last else 0) != end:
        return None
    return body_begin, body_end, is_last


def _answer(
    body: bytes, told: envoy_pb2.Metadata, tail: Tail, *, at_s: float, is_last: bool
) -> ResponseBody:
    return ResponseBody(
        at_s=at_s,
        body=body,
        end_of_stream=is_last,
        decision_id=metadata_value(told, DECISION_ID) or "",
        served=metadata_value(told, SERVED) or tail.served,
        response_code=tail.response_code,
    )
