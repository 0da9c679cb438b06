"""Kind: what may stand at a place of Envoy's configuration, by Envoy's own descriptors.

They were read from an Envoy binary: `scripts/envoy_schema.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TypeAlias

import orjson

TYPED_STRUCTS = ("xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct")
"""Another message as a Struct; `type_url` says which."""
WELL_KNOWN = "google.protobuf."
"""Messages with a JSON form of their own: inside an Any they stand under `value`."""

_Fields: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Kind:
    """A scalar (`bool`, `number`, `string`, `bytes`), or the name of a message or an enum.

    Attributes:
        name: full, `envoy.config.cluster.v3.Cluster`; empty where nothing is known.
        listed: a list of such.
        keyed: a mapping whose values are such.
    """

    name: str = ""
    listed: bool = False
    keyed: bool = False

    @property
    def one(self) -> Kind:
        """Of each of several."""
        return Kind(self.name)

    @property
    def is_message(self) -> bool:
        """Whether it has fields that are known."""
        return not self.keyed and self.name in envoy_schema().messages

    def field(self, name: str) -> Kind:
        """Of the field called *name*, as Envoy's descriptors spell it."""
        if self.keyed:
            return self.one
        return _kind(envoy_schema().messages.get(self.name, {}).get(name, ""))

    def spelled(self, name: str) -> str:
        """The field that is meant by *name*, which may be in camel case; empty for none."""
        return _field_names(self.name).get(name, "")

    def enum_value(self, written: object) -> str | None:
        """The name of the value that is *written* by its name, in any case, or its number.

        None where this is no enum, or has no such value.
        """
        values = envoy_schema().enums.get(self.name)
        if values is None or isinstance(written, bool):
            return None
        text = str(written)
        for name, number in values.items():
            if text.casefold() == name.casefold() or text == str(number):
                return name
        return None


UNTYPED = Kind()
"""Of what is none of Envoy's messages."""
ANY = Kind("google.protobuf.Any")
"""Of what names its message itself."""
BOOTSTRAP = Kind("envoy.config.bootstrap.v3.Bootstrap")
"""Of the file that Envoy is started with."""
RESOURCES = Kind("envoy.service.discovery.v3.DiscoveryResponse")
"""Of a file that resources are read from while Envoy runs: listeners, clusters, endpoints."""


@dataclass(frozen=True, slots=True)
class EnvoySchema:
    """What Envoy's messages hold.

    Attributes:
        envoy: version of the Envoy it was read from.
        messages: the kind of each field; `[]` before one of a list, `{}` of a mapping's values.
        enums: the number of each value.
    """

    envoy: str
    messages: Mapping[str, _Fields]
    enums: Mapping[str, Mapping[str, int]]


@cache
def envoy_schema() -> EnvoySchema:
    """Read in 3 ms, when first needed."""
    return EnvoySchema(**orjson.loads((files(__package__) / "envoy_schema.json").read_bytes()))


@cache
def _field_names(message: str) -> Mapping[str, str]:
    """The fields of *message* by both of their spellings."""
    names = envoy_schema().messages.get(message, {})
    return {**{camel_case(name): name for name in names}, **{name: name for name in names}}


def message_kind(type_url: str) -> Kind:
    """Of the message that *type_url* names, `type.googleapis.com/envoy...`."""
    return Kind(type_url.rpartition("/")[2])


def camel_case(name: str) -> str:
    """As JSON spells a field.

    >>> camel_case("connect_timeout")
    'connectTimeout'
    """
    head, *tail = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)


def _kind(written: str) -> Kind:
    name = written.removeprefix("[]").removeprefix("{}")
    return Kind(name, listed=written.startswith("[]"), keyed=written.startswith("{}"))
