"""What Envoy sends beside a message's content: dynamic metadata and attributes.

It keeps no state. The names it reads stand in `names.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def message_metadata(message: envoy_pb2.ProcessingRequest, key: str) -> str | None:
    """A string of our namespace of the message's dynamic metadata; None where there is none."""
    if not message.HasField("metadata_context"):
        return None
    return metadata_value(message.metadata_context, key)


def metadata_value(metadata: envoy_pb2.Metadata, key: str) -> str | None:
    """A string of our namespace of dynamic metadata; None where there is none."""
    if METADATA_NAMESPACE not in metadata.filter_metadata:
        return None
    fields = metadata.filter_metadata[METADATA_NAMESPACE].fields
    return (fields[key].string_value or None) if key in fields else None


def metadata_texts(message: envoy_pb2.ProcessingRequest) -> Mapping[str, str] | None:
    """All strings of our namespace of dynamic metadata; None where it is not forwarded."""
    namespaces = message.metadata_context.filter_metadata
    if METADATA_NAMESPACE not in namespaces:
        return None
    return {key: value.string_value for key, value in namespaces[METADATA_NAMESPACE].fields.items()}


def subset_hint(message: envoy_pb2.ProcessingRequest) -> Subset | None:
    """The endpoints a gateway allows: a list, or a text with commas. Any other form allows none."""
    if not message.HasField("metadata_context"):
        return None
    namespaces = message.metadata_context.filter_metadata
    if SUBSET_NAMESPACE not in namespaces or SUBSET not in namespaces[SUBSET_NAMESPACE].fields:
        return None
    hint = namespaces[SUBSET_NAMESPACE].fields[SUBSET]
    return Subset.of([hint.string_value, *(item.string_value for item in hint.list_value.values)])


def attribute(message: envoy_pb2.ProcessingRequest, key: str) -> str | None:
    """A text among the attributes that the filter is configured to send; None where it is not."""
    fields = _attributes(message)
    return (fields[key].string_value or None) if key in fields else None


def response_code(message: envoy_pb2.ProcessingRequest) -> int | None:
    """The status code from the attribute, or else from the response headers."""
    fields = _attributes(message)
    if RESPONSE_CODE in fields:
        return _status(fields[RESPONSE_CODE].number_value)
    if message.HasField("response_headers"):
        for header in message.response_headers.headers.headers:
            if header.key == STATUS:
                return _status(header_value(header))
    return None


def header_value(header: envoy_pb2.HeaderValue) -> str:
    """The header's text: Envoy fills raw_value, other senders fill value."""
    return header.raw_value.decode("utf-8", "replace") or header.value


def _status(given: str | float) -> int | None:
    try:
        return int(given) or None
    except (ValueError, OverflowError):
        return None


def _attributes(message: envoy_pb2.ProcessingRequest) -> Mapping[str, Any]:
    if ATTRIBUTES_NAMESPACE not in message.attributes:
        return _NO_FIELDS
    fields: Mapping[str, Any] = message.attributes[ATTRIBUTES_NAMESPACE].fields
    return fields
