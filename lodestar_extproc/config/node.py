"""Node: a value in a YAML or JSON file that knows its line, its path and what kind it is.

Of Envoy's messages it is read by Envoy's own rules (`schema.py`, `scalars.py`); of anything else,
such as a file of settings, as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lodestar_extproc.config import scalars
from lodestar_extproc.config.errors import ConfigError
from lodestar_extproc.config.schema import (
    ANY,
    TYPED_STRUCTS,
    UNTYPED,
    WELL_KNOWN,
    Kind,
    camel_case,
    message_kind,
)
from lodestar_extproc.config.yaml_tree import read_yaml
from lodestar_extproc.regular_file import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

Key: TypeAlias = str | int


@dataclass(frozen=True, slots=True)
class Node:
    """A place in a file; one that is not there has the value None and the line of its parent.

    So a chain of `get` never fails, and what is missing still has a line to show.

    Attributes:
        value: what the YAML library read: a mapping, a list, or a scalar.
        line: counted from 1.
        path: from the top of the file.
        kind: of Envoy's; a `typed_config` is of the message that it holds.
    """

    value: object
    file: str
    line: int = 1
    path: tuple[Key, ...] = ()
    kind: Kind = UNTYPED

    def __bool__(self) -> bool:
        return self.value is not None

    def get(self, *names: str) -> Node:
        """The value under *names*, one inside the other; what a wrapper holds, not the wrapper."""
        node = self
        for name in names:
            node = node._child(name)
        return node

    def _child(self, name: str) -> Node:
        kind = self.kind.field(name)
        if isinstance(self.value, Mapping):
            for spelled in (name,) if self.kind.keyed else (name, camel_case(name)):
                if spelled in self.value:
                    line = _line_of_key(self.value, spelled, self.line)
                    path = (*self.path, spelled)
                    return _opened(Node(self.value[spelled], self.file, line, path, kind))
        return Node(None, self.file, self.line, (*self.path, name), kind)

    def items(self) -> Iterator[Node]:
        """The elements of a list; none of anything else.

        Where Envoy wants a list, a single element may stand without brackets.
        """
        if isinstance(self.value, Sequence) and not isinstance(self.value, str):
            for i, value in enumerate(self.value):
                line = _line_of_item(self.value, i, self.line)
                path = (*self.path, i)
                yield _opened(Node(value, self.file, line, path, self.kind.one))
        elif self.kind.listed and self.value is not None:
            yield _opened(replace(self, kind=self.kind.one))

    def entries(self) -> Iterator[tuple[str, Node]]:
        """The keys and values of a mapping, fields as Envoy's descriptors spell them; else none."""
        if isinstance(self.value, Mapping):
            for key, value in self.value.items():
                line = _line_of_key(self.value, key, self.line)
                name = self.kind.spelled(str(key)) or str(key)
                path = (*self.path, str(key))
                yield name, _opened(Node(value, self.file, line, path, self.kind.field(name)))

    def messages(self, type_name: str) -> Iterator[Node]:
        """This message if it is of this type, else all inside of it that are."""
        if self.kind.listed:
            for item in self.items():
                yield from item.messages(type_name)
        elif self.kind.keyed or self.type_name != type_name:
            inside = self.entries() if self.kind.name else ()
            for _, child in inside:
                yield from child.messages(type_name)
        elif isinstance(self.value, Mapping):
            yield self

    @property
    def text(self) -> str:
        """The scalar as text, an enum's value by its name; empty where there is none."""
        if not isinstance(self.value, (str, int, float)):
            return ""
        return self.kind.enum_value(self.value) or str(self.value)

    @property
    def flag(self) -> bool:
        """Whether it is `true`."""
        return scalars.flag(scalars.unwrapped(self.value))

    @property
    def number(self) -> float | None:
        """A number, also one in quotes, as JSON writes 64-bit ones; None where there is none."""
        return scalars.number(scalars.unwrapped(self.value))

    @property
    def seconds(self) -> float | None:
        """A duration as Envoy writes it (`0.25s`, `{seconds: 2}`); None where there is none."""
        return scalars.seconds(self.value)

    @property
    def plain(self) -> object:
        """The value as YAML has it where Envoy knows no field: `0.50` is a number there."""
        return scalars.plain(self.value)

    @property
    def type_name(self) -> str:
        """The message that it is, without its package: `ExternalProcessor`; empty for none."""
        return "" if self.kind == ANY else self.kind.name.rpartition(".")[2]

    @property
    def key(self) -> str:
        """The path in words: `static_resources.clusters[0].name`."""
        parts = (f"[{k}]" if isinstance(k, int) else f".{k}" for k in self.path)
        return "".join(parts).removeprefix(".")

    def error(self, problem: str) -> ConfigError:
        """An error to raise about this place."""
        return ConfigError(problem, file=self.file, line=self.line, key=self.key)


def read_node(path: Path, kind: Kind = UNTYPED) -> Node:
    """The file at *path*, whole, which holds a *kind* of message.

    Raises:
        ConfigError: it cannot be opened, or is neither YAML nor JSON.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=str(path)) from error
    return parse_node(text, str(path), kind)


def parse_node(text: str, file: str, kind: Kind = UNTYPED) -> Node:
    """*text* as a node of *kind*; *file* is its name in errors.

    Raises:
        ConfigError: it is neither YAML nor JSON.
    """
    if text.lstrip().startswith("{"):
        # JSON may be indented by tabs, YAML may not; inside a JSON string there are none.
        text = text.replace("\t", " ")
    try:
        value = read_yaml(text, once=kind is UNTYPED)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = f"is not valid YAML: {error.problem or error.context}"
        raise ConfigError(problem, file=file, line=line) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"is not valid YAML: {error}", file=file) from error
    return Node(value, file, kind=kind)


def _opened(node: Node) -> Node:
    """The message that an Any holds, however it is wrapped; any other node as it is.

    An Any names its message in `@type`. That may be a TypedStruct, which names another in
    `type_url` and holds it under `value`; so stand protobuf's own messages, Struct for one.
    """
    if node.kind != ANY or not isinstance(node.value, Mapping):
        return node
    named = message_kind(str(node.value.get("@type", "")))
    if named.name in TYPED_STRUCTS:
        struct = replace(node, kind=named)
        named = message_kind(struct.get("type_url").text)
    elif not named.name.startswith(WELL_KNOWN):
        return replace(node, kind=named)
    held = node.get("value")
    # A TypedStruct without a value is a message without fields.
    return replace(held, value=held.value if held else {}, kind=named)


def _line_of_key(mapping: object, key: object, default: int) -> int:
    # What came through an anchor (`<<: *defaults`) has no line of its own.
    data = getattr(getattr(mapping, "lc", None), "data", None) or {}
    return data[key][0] + 1 if key in data else default


def _line_of_item(sequence: object, index: int, default: int) -> int:
    data = getattr(getattr(sequence, "lc", None), "data", None) or {}
    return data[index][0] + 1 if index in data else default
