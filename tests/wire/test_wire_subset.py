"""Our subset of the protocol against envoy-data-plane: alike in both directions, field by field."""

from __future__ import annotations

import random

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

import envoy_types
from envoy_json import as_envoy_writes, is_text
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2

ROOTS = {
    envoy_pb2.ProcessingRequest: envoy_types.ProcessingRequest,
    envoy_pb2.ProcessingResponse: envoy_types.ProcessingResponse,
    envoy_pb2.StreamAccessLogsMessage: envoy_types.StreamAccessLogsMessage,
}
TEXTS = ("a", "ü", "x" * 200)
SCALARS = {
    FieldDescriptor.CPPTYPE_STRING: lambda rng: rng.choice(TEXTS),
    FieldDescriptor.CPPTYPE_BOOL: lambda _: True,
    FieldDescriptor.CPPTYPE_DOUBLE: lambda rng: rng.randrange(1, 1000) / 2,
    FieldDescriptor.CPPTYPE_INT32: lambda rng: rng.randrange(1, 2**31),
    FieldDescriptor.CPPTYPE_UINT32: lambda rng: rng.randrange(1, 2**32),
    FieldDescriptor.CPPTYPE_INT64: lambda rng: rng.randrange(1, 2**63),
}


def fill(message, rng: random.Random) -> None:
    """Set every field; of a oneof, one."""
    if isinstance(message, Struct):
        message.update({"a": "b", "n": 1.5, "deep": {"list": [True, None, "x"]}})
        return
    if isinstance(message, envoy_pb2.Value):
        # One of them: Envoy's own type has them in a oneof.
        fill_field(message, rng.choice(message.DESCRIPTOR.fields), rng)
        return
    if isinstance(message, Duration):
        # No trailing zero: the two write those differently in JSON.
        message.seconds, message.nanos = rng.randrange(1000), rng.randrange(1, 10**6, 10) * 1000
        return
    chosen = {group.name: rng.choice(group.fields) for group in message.DESCRIPTOR.oneofs}
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof and chosen[field.containing_oneof.name] is not field:
            continue
        fill_field(message, field, rng)


def fill_field(message, field, rng: random.Random) -> None:
    target = getattr(message, field.name)
    if field.name == "log_entry":
        for _ in range(2):
            entry = envoy_pb2.HTTPAccessLogEntry()
            fill(entry, rng)
            target.append(entry.SerializeToString())
    elif field.is_repeated:
        for number in range(2):
            if field.message_type:
                fill(added := target.add(), rng)
                if field.message_type.name.endswith("Entry"):
                    added.key = b"k%d" % number
            else:
                target.append(scalar(field, rng))
    elif field.message_type:
        target.SetInParent()
        fill(target, rng)
    else:
        setattr(message, field.name, scalar(field, rng))


def scalar(field, rng: random.Random):
    if field.enum_type:
        return rng.choice([v.number for v in field.enum_type.values])
    if is_text(field):
        return rng.choice(TEXTS).encode()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(5)
    return SCALARS[field.cpp_type](rng)


@pytest.mark.parametrize("ours", ROOTS, ids=lambda m: m.DESCRIPTOR.name)
@pytest.mark.parametrize("seed", range(20))
def test_what_one_encodes_the_other_decodes_alike(ours, seed):
    theirs = ROOTS[ours]
    message = ours()
    fill(message, random.Random(seed))
    as_json = as_envoy_writes(message)

    assert theirs.parse(message.SerializeToString()).to_dict() == as_json
    assert as_envoy_writes(ours.FromString(bytes(theirs.from_dict(as_json)))) == as_json


def fields_of(descriptor) -> dict[str, set[int]]:
    """Every message type under *descriptor*, with its field numbers."""
    found: dict[str, set[int]] = {}
    waiting = [descriptor]
    while waiting:
        each = waiting.pop()
        if each.full_name not in found:
            found[each.full_name] = {f.number for f in each.fields}
            waiting.extend(f.message_type for f in each.fields if f.message_type)
    return found


def test_every_message_of_ours_is_compared():
    compared = set()
    # An entry is bytes to the message that holds it; the test above fills it.
    for root in (*ROOTS, envoy_pb2.HTTPAccessLogEntry):
        compared |= set(fields_of(root.DESCRIPTOR))
    ours = {m.full_name for m in envoy_pb2.DESCRIPTOR.message_types_by_name.values()}
    # An empty message, and the health service, which Envoy's API does not hold.
    apart = {
        "StreamAccessLogsResponse",
        *(n for n in envoy_pb2.DESCRIPTOR.message_types_by_name if n.startswith("Health")),
    }
    assert ours - compared == {f"lodestar.v1.{name}" for name in apart}
