"""What Envoy sends beside a message's content: dynamic metadata, attributes, tags, headers' text.

It keeps no state. The names it reads stand in `names.py`. Texts may hold any bytes, for clients
write some of them; what is no UTF-8 in them is replaced, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from lodestar_extproc.generated.lodestar.v1 import envoy_pb2
from lodestar_extproc.names import (
    ATTRIBUTES_NAMESPACE,
    METADATA_NAMESPACE,
    RESPONSE_CODE,
    STATUS,
    SUBSET,
    SUBSET_NAMESPACE,
)
from lodestar_extproc.request import Subset

_NO_FIELDS: Mapping[str, Any] = MappingProxyType({})


def text(given: bytes) -> str:
    """*given* as text, whatever it holds."""
    return given.decode("utf-8", "replace")


def message_metadata(message: envoy_pb2.ProcessingRequest, key: str) -> str | None:
    """A string of our namespace of the message's dynamic metadata; None where there is none."""
    return metadata_value(message.metadata_context, key)


def metadata_value(metadata: envoy_pb2.Metadata, key: str) -> str | None:
    """A string of our namespace of dynamic metadata; None where there is none."""
    fields = _fields(metadata.filter_metadata, METADATA_NAMESPACE)
    return (text(fields[key].string_value) or None) if key in fields else None


def metadata_texts(message: envoy_pb2.ProcessingRequest) -> Mapping[str, str] | None:
    """All strings of our namespace of dynamic metadata; None where it is not forwarded."""
    namespaces = message.metadata_context.filter_metadata
    if all(each.key != METADATA_NAMESPACE.encode() for each in namespaces):
        return None
    fields = _fields(namespaces, METADATA_NAMESPACE)
    return {key: text(value.string_value) for key, value in fields.items()}


def subset_hint(message: envoy_pb2.ProcessingRequest) -> Subset | None:
    """The endpoints a gateway allows: a list, or a text with commas. Any other form allows none."""
    fields = _fields(message.metadata_context.filter_metadata, SUBSET_NAMESPACE)
    if SUBSET not in fields:
        return None
    hint = fields[SUBSET]
    listed = [text(item.string_value) for item in hint.list_value.values]
    return Subset.of([text(hint.string_value), *listed])


def attribute(message: envoy_pb2.ProcessingRequest, key: str) -> str | None:
    """A text among the attributes that the filter is configured to send; None where it is not."""
    fields = _fields(message.attributes, ATTRIBUTES_NAMESPACE)
    return (text(fields[key].string_value) or None) if key in fields else None


def response_code(message: envoy_pb2.ProcessingRequest) -> int | None:
    """The status code from the attribute, or else from the response headers."""
    fields = _fields(message.attributes, ATTRIBUTES_NAMESPACE)
    if RESPONSE_CODE in fields:
        return _status(fields[RESPONSE_CODE].number_value)
    if message.HasField("response_headers"):
        for header in message.response_headers.headers.headers:
            if header.key == STATUS.encode():
                return _status(header_value(header))
    return None


def header_value(header: envoy_pb2.HeaderValue) -> str:
    """The header's text: Envoy fills raw_value, other senders fill value."""
    return text(header.raw_value or header.value)


def _status(given: str | float) -> int | None:
    try:
        return int(given) or None
    except (ValueError, OverflowError):
        return None


def _fields(
    namespaces: Iterable[envoy_pb2.NamespaceEntry], namespace: str
) -> Mapping[str, envoy_pb2.Value]:
    """The fields of *namespace*, by name; a name that comes twice has the last value, as in a map.

    There are a few namespaces at most, and most messages bring none.
    """
    wanted = namespace.encode()
    found: Mapping[str, envoy_pb2.Value] = _NO_FIELDS
    for each in namespaces:
        if each.key == wanted:
            found = {text(entry.key): entry.value for entry in each.value.fields}
    return found
