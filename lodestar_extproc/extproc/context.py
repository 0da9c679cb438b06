"""What Envoy sends beside a message's content: dynamic metadata, attributes, tags, headers' text.

It keeps no state. The names it reads stand in `names.py`. Texts may hold any bytes, for clients
write some of them; what is no UTF-8 in them is replaced, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def text(given: bytes) -> str:
    """*given* as text, whatever it holds."""
    return given.decode("utf-8", "replace")


def message_metadata(message: envoy_pb2.ProcessingRequest, key: str) -> str | None:
    """A string of our namespace of the message's dynamic metadata; None where there is none."""
    return metadata_value(message.metadata_context, key)


def metadata_value(metadata: envoy_pb2.Metadata, key: str) -> str | None:
    """A string of our namespace of dynamic metadata; None where there is none."""
    value = _value(metadata.filter_metadata, METADATA_NAMESPACE, key)
    return None if value is None else text(value.string_value) or None


def metadata_texts(message: envoy_pb2.ProcessingRequest) -> Mapping[str, str] | None:
    """All strings of our namespace of dynamic metadata; None where it is not forwarded."""
    wanted, found = METADATA_NAMESPACE.encode(), None
    for each in message.metadata_context.filter_metadata:
        if each.key == wanted:
            found = {text(e.key): text(e.value.string_value) for e in each.value.fields}
    return found


def subset_in(metadata: envoy_pb2.Metadata) -> Subset | None:
    """The endpoints a gateway allows: a list, or a text with commas. Any other form allows none."""
    hint = _value(metadata.filter_metadata, SUBSET_NAMESPACE, SUBSET)
    if hint is None:
        return None
    listed = [text(item.string_value) for item in hint.list_value.values]
    return Subset.of([text(hint.string_value), *listed])


def attribute(message: envoy_pb2.ProcessingRequest, key: str) -> str | None:
    """A text among the attributes that the filter is configured to send; None where it is not."""
    value = _value(message.attributes, ATTRIBUTES_NAMESPACE, key)
    return None if value is None else text(value.string_value) or None


def response_code(message: envoy_pb2.ProcessingRequest) -> int | None:
    """The status code from the attribute, or else from the response headers."""
    told = _value(message.attributes, ATTRIBUTES_NAMESPACE, RESPONSE_CODE)
    if told is not None:
        return _status(told.number_value)
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


def _value(
    namespaces: Iterable[envoy_pb2.NamespaceEntry], namespace: str, key: str
) -> envoy_pb2.Value | None:
    """What stands under *key* in *namespace*; of two the last, as in a map. Both are short."""
    wanted_namespace, wanted, found = namespace.encode(), key.encode(), None
    for each in namespaces:
        if each.key == wanted_namespace:
            for entry in each.value.fields:
                if entry.key == wanted:
                    found = entry.value
    return found
