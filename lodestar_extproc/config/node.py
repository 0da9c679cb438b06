"""Node: a value in a YAML or JSON file that knows its line and its path.

It knows nothing of Envoy, except that a name may be spelled `snake_case` or `camelCase`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lodestar_extproc.config.errors import ConfigError

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
    """

    value: object
    file: str
    line: int = 1
    path: tuple[Key, ...] = ()

    def __bool__(self) -> bool:
        return self.value is not None

    def get(self, *names: str) -> Node:
        """The value under *names*, one inside the other."""
        node = self
        for name in names:
            node = node._child(name)
        return node

    def _child(self, name: str) -> Node:
        if isinstance(self.value, Mapping):
            for spelled in (name, _camel_case(name)):
                if spelled in self.value:
                    line = _line_of_key(self.value, spelled, self.line)
                    return Node(self.value[spelled], self.file, line, (*self.path, spelled))
        return Node(None, self.file, self.line, (*self.path, name))

    def items(self) -> Iterator[Node]:
        """The elements of a list; none of anything else."""
        if isinstance(self.value, Sequence) and not isinstance(self.value, str):
            for i, value in enumerate(self.value):
                line = _line_of_item(self.value, i, self.line)
                yield Node(value, self.file, line, (*self.path, i))

    def entries(self) -> Iterator[tuple[str, Node]]:
        """The keys and values of a mapping; none of anything else."""
        if isinstance(self.value, Mapping):
            for key in self.value:
                line = _line_of_key(self.value, key, self.line)
                yield str(key), Node(self.value[key], self.file, line, (*self.path, str(key)))

    @property
    def text(self) -> str:
        """The scalar as text; empty where there is none."""
        return str(self.value) if isinstance(self.value, (str, int, float)) else ""

    @property
    def flag(self) -> bool:
        """Whether it is `true`."""
        return self.value is True

    @property
    def number(self) -> float | None:
        """A number, also one in quotes, as JSON writes 64-bit ones; None where there is none."""
        if isinstance(self.value, bool):
            return None
        try:
            return float(self.text)
        except ValueError:
            return None

    @property
    def seconds(self) -> float | None:
        """A duration as Envoy writes it (`0.25s`); None where there is none."""
        match = re.fullmatch(r"(-?[0-9.]+)s", self.text)
        return float(match[1]) if match else None

    @property
    def type_name(self) -> str:
        """The message a `typed_config` holds, without its package: `ExternalProcessor`."""
        return self.get("@type").text.rpartition(".")[2]

    @property
    def key(self) -> str:
        """The path in words: `static_resources.clusters[0].name`."""
        parts = (f"[{k}]" if isinstance(k, int) else f".{k}" for k in self.path)
        return "".join(parts).removeprefix(".")

    def error(self, problem: str) -> ConfigError:
        """An error to raise about this place."""
        return ConfigError(problem, file=self.file, line=self.line, key=self.key)


def read_node(path: Path) -> Node:
    """The file at *path*, whole.

    Raises:
        ConfigError: it cannot be opened, or is neither YAML nor JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=str(path)) from error
    return parse_node(text, str(path))


def parse_node(text: str, file: str) -> Node:
    """*text* as a node; *file* is its name in errors.

    Raises:
        ConfigError: it is neither YAML nor JSON.
    """
    if text.lstrip().startswith("{"):
        # JSON may be indented by tabs, YAML may not; inside a JSON string there are none.
        text = text.replace("\t", " ")
    try:
        value = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = f"is not valid YAML: {error.problem or error.context}"
        raise ConfigError(problem, file=file, line=line) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"is not valid YAML: {error}", file=file) from error
    return Node(value, file)


def _camel_case(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def _line_of_key(mapping: object, key: object, default: int) -> int:
    # What came through an anchor (`<<: *defaults`) has no line of its own.
    data = getattr(getattr(mapping, "lc", None), "data", None) or {}
    return data[key][0] + 1 if key in data else default


def _line_of_item(sequence: object, index: int, default: int) -> int:
    data = getattr(getattr(sequence, "lc", None), "data", None) or {}
    return data[index][0] + 1 if index in data else default
