"""Our subset of Envoy's messages as the JSON of Envoy's own, which has maps and texts in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb

BINARY = ("raw_value", "body")
"""What is bytes in Envoy's messages too."""


def as_envoy_writes(message: Message) -> dict[str, Any]:
    """*message* as the JSON of Envoy's own type."""
    written: dict[str, Any] = MessageToDict(message)
    for field, value in message.ListFields():
        if field.name == "log_entry":
            each = [pb.HTTPAccessLogEntry.FromString(entry) for entry in value]
            written[field.json_name] = [as_envoy_writes(entry) for entry in each]
        elif field.message_type is not None and field.message_type.name.endswith("Entry"):
            written[field.json_name] = {e.key.decode(): _plain(e.value) for e in value}
        elif field.message_type is not None and field.is_repeated:
            written[field.json_name] = [_plain(e) for e in value]
        elif field.message_type is not None or is_text(field):
            written[field.json_name] = _plain(value)
    return written


def is_text(field: FieldDescriptor) -> bool:
    """Whether it is bytes with us and a string with Envoy."""
    return field.type == FieldDescriptor.TYPE_BYTES and field.name not in BINARY


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, pb.Struct):
        return {each.key.decode(): _plain(each.value) for each in value.fields}
    if isinstance(value, pb.Value):
        ((_, held),) = value.ListFields()
        return held if isinstance(held, float) else _plain(held)
    if isinstance(value, pb.ListValue):
        return [each.string_value.decode() for each in value.values]
    ours = value.DESCRIPTOR.full_name.startswith("lodestar.")
    return as_envoy_writes(value) if ours else MessageToDict(value)


def add_metadata(
    sent: pb.ProcessingRequest, namespace: str, fields: Mapping[str, str | bytes | list[str]]
) -> None:
    """Dynamic metadata of *namespace*: texts, or lists of texts."""
    entry = sent.metadata_context.filter_metadata.add(key=namespace.encode())
    entry.value.SetInParent()
    for key, value in fields.items():
        told = entry.value.fields.add(key=key.encode()).value
        if isinstance(value, list):
            told.list_value.SetInParent()
            for each in value:
                told.list_value.values.add(string_value=each.encode())
        else:
            told.string_value = value if isinstance(value, bytes) else value.encode()
