"""Other spellings of one Envoy file that mean the same: names, enums, durations, truths, wrappers.

What is written is a tree; what comes out is YAML, each time spelled otherwise by the dice. Envoy is
asked afterwards whether it accepts it, and what it understood.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lodestar_extproc.config.schema import Kind, camel_case, envoy_schema, message_kind

WRAPPERS = re.compile(r"google\.protobuf\.(\w*)Value")
STRUCTS = ("xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct")
UNWRAPPED = (
    "envoy.config.listener.v3.Listener",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.route.v3.FilterConfig",
    "envoy.config.core.v3.TypedExtensionConfig",
)
"""Envoy takes no TypedStruct for one of these."""
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])
TRUE, FALSE = (
    ("true", "yes", "on", "Y", "True", "YES", '"true"'),
    ("false", "no", "off", "N", "Off", '"false"'),
)


class Speller:
    """Writes trees as YAML in flow style.

    Attributes:
        wrapped: in what share of the places where it is allowed a message is a TypedStruct.
    """

    def __init__(self, dice: random.Random, *, wrapped: float = 0.15) -> None:
        self._dice = dice
        self._wrapped = wrapped
        self._anchors: dict[str, str] = {}

    def document(self, tree: Mapping[str, Any], kind: Kind) -> str:
        """A whole file: sometimes with a head, something ignored, and another document behind."""
        self._anchors = {}
        text = self._fields(tree, kind)
        if self._often(0.3):
            text = "{!ignore anchors: {unused: &unused [1, 2]}, " + text[1:]
        head = "---\n" if self._often(0.3) else ""
        tail = "\n---\n{not: {for: envoy}}\n" if self._often(0.3) else "\n"
        return head + text + tail

    def spell(self, value: Any, kind: Kind) -> str:
        if value is None:
            return self._one_of("null", "~")
        if kind.listed:
            items = value if isinstance(value, list) else [value]
            if len(items) == 1 and self._often(0.3) and items[0] is not None:
                return self.spell(items[0], kind.one)
            return f"[{', '.join(self.spell(item, kind.one) for item in items)}]"
        if kind.keyed:
            pairs = (f"{json.dumps(key)}: {self.spell(v, kind.one)}" for key, v in value.items())
            return f"{{{', '.join(pairs)}}}"
        return self._one(value, kind)

    def _one(self, value: Any, kind: Kind) -> str:
        if kind.name == "google.protobuf.Any":
            return self._any(value)
        if kind.name == "google.protobuf.Duration":
            return self._duration(value)
        if match := WRAPPERS.fullmatch(kind.name):
            return self._wrapper(value, match[1])
        return self._message(value, kind) if kind.is_message else self._scalar(value, kind)

    def _message(self, value: Mapping[str, Any], kind: Kind, *first: str) -> str:
        """Sometimes with an anchor, or as the alias of what stood before."""
        said = json.dumps([kind.name, value, first], sort_keys=True)
        if said in self._anchors and self._often(0.7):
            return f"*{self._anchors[said]} "
        text = self._fields(value, kind, *first)
        if said in self._anchors or not value or not self._often(0.5):
            return text
        self._anchors[said] = f"a{len(self._anchors)}"
        return f"&{self._anchors[said]} {text}"

    def _fields(self, value: Mapping[str, Any], kind: Kind, *first: str) -> str:
        fields = list(value.items())
        self._dice.shuffle(fields)
        pairs = [
            f"{self._one_of(name, camel_case(name))}: {self.spell(each, kind.field(name))}"
            for name, each in ((kind.spelled(name) or name, each) for name, each in fields)
        ]
        return f"{{{', '.join([*first, *pairs])}}}"

    def _any(self, value: Mapping[str, Any]) -> str:
        url = value["@type"]
        kind = message_kind(url)
        fields = {name: each for name, each in value.items() if name != "@type"}
        never = kind.name in STRUCTS or kind.name in UNWRAPPED or not kind.is_message
        if never or not self._often(self._wrapped):
            return self._message(fields, kind, f'"@type": {url}')
        struct = f'"@type": type.googleapis.com/{self._one_of(*STRUCTS)}'
        name = self._one_of("type_url", "typeUrl")
        return f"{{{struct}, {name}: {url}, value: {self._message(fields, kind)}}}"

    def _duration(self, value: str | Mapping[str, Any]) -> str:
        if not isinstance(value, str) or not self._often(0.6):
            return json.dumps(value) if self._often(0.5) else str(value).replace("'", '"')
        whole, _, part = value[:-1].partition(".")
        nanos = int(part.ljust(9, "0")) if part else 0
        seconds = self._one_of(f"seconds: {int(whole)}", f'seconds: "{int(whole)}"')
        return f"{{{seconds}, nanos: {nanos}}}" if nanos else f"{{{seconds}}}"

    def _wrapper(self, value: Any, kind: str) -> str:
        inner = value["value"] if isinstance(value, Mapping) else value
        name = {"Bool": "bool", "String": "string", "Bytes": "bytes"}.get(kind, "number")
        spelled = self._scalar(inner, Kind(name))
        return f"{{value: {spelled}}}" if self._often(0.3) else spelled

    def _scalar(self, value: Any, kind: Kind) -> str:
        if values := envoy_schema().enums.get(kind.name):
            return self._enum(str(value), values)
        if isinstance(value, bool):
            return self._one_of(*(TRUE if value else FALSE))
        if kind.name == "number":
            return self._number(value)
        if isinstance(value, str):
            return self._text(value)
        # Inside a Struct nothing is known of what is meant.
        return json.dumps(value)

    def _enum(self, value: str, values: Mapping[str, int]) -> str:
        number = values.get(value)
        if number is None:
            return value
        named = self._one_of(value, value.lower(), value.title(), json.dumps(value))
        return self._one_of(named, str(number), f'"{number}"')

    def _number(self, value: Any) -> str:
        if isinstance(value, str) or not float(value).is_integer() or value < 0:
            return json.dumps(value)
        whole = int(value)
        forms = [str(whole), f'"{whole}"', f"{whole}.0", f'"{whole}.0"', hex(whole), f"0{whole:o}"]
        forms.append(f"{whole // 1000}e3" if whole and whole % 1000 == 0 else f"+{whole}")
        return self._one_of(*forms)

    def _text(self, value: str) -> str:
        plain = PLAIN.fullmatch(value) and value.lower() not in WORDS
        single = "'" + value.replace("'", "''") + "'" if value.isprintable() else json.dumps(value)
        return self._one_of(json.dumps(value), single, *([value] if plain else []))

    def _often(self, share: float) -> bool:
        return self._dice.random() < share

    def _one_of(self, *forms: str) -> str:
        return self._dice.choice(forms)


def canonical(node: Any) -> Any:
    """What a node of Envoy's messages says, as Envoy's dumps do: without what is the default."""
    kind = node.kind
    if kind.listed:
        return [canonical(item) for item in node.items()]
    if kind.keyed:
        return {key: canonical(each) for key, each in node.entries()}
    if kind.is_message:
        said = {name: canonical(each) for name, each in node.entries() if each}
        return {n: each for n, each in said.items() if n != "@type" and not _is_default(each)}
    return _canonical_scalar(node)


def _canonical_scalar(node: Any) -> Any:
    name = node.kind.name
    if name == "google.protobuf.Duration":
        return round(node.seconds, 9)
    if match := WRAPPERS.fullmatch(name):
        return _scalar_of(node, match[1].lower())
    if values := envoy_schema().enums.get(name):
        return None if node.text == next(iter(values)) else node.text
    return _scalar_of(node, name) if name else _plain(node.value)


def _scalar_of(node: Any, name: str) -> Any:
    if name == "bool":
        return node.flag
    return node.text if name in ("string", "bytes") else node.number


def _is_default(value: Any) -> bool:
    return value is None or value is False or value in ("", 0.0) or value == []


def _plain(value: Any) -> Any:
    """A Struct's value: Envoy keeps a broken number as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else value
