"""read_yaml(): YAML as Envoy reads it, its lines kept.

Envoy takes the first document, the last of keys that stand twice, and of a plain scalar nothing
but null, a boolean or a whole number: all else is text, and a field of numbers reads numbers in it.
What differs from what a YAML library makes of it was tried with Envoy 1.40 (`yes`, `010`, `1.10`).
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.scalarstring import PlainScalarString

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ruamel.yaml.nodes import Node as YamlNode

MAX_DEPTH = 200
"""Envoy's own files stay below 40; an alias inside of what it stands for has no end."""
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
TRUTHS: Mapping[str, bool] = MappingProxyType(
    {"y": True, "yes": True, "true": True, "on": True}
    | {"n": False, "no": False, "false": False, "off": False}
)
"""By yaml-cpp, in lower case, upper case, or with a capital."""
WHOLE = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
"""As C writes numbers: `010` is 8."""
BROKEN = re.compile(r"[+-]?(\.\d+|\d+(\.\d*)?)([eE][+-]?\d+)?")
IGNORED, MERGED = "!ignore", "<<"
"""Envoy passes over keys with this tag; the other is YAML's merge, which Envoy does not know."""


class UnusableYaml(MarkedYAMLError):  # noqa: N818  (named for the condition)
    """YAML that nothing can be made of: without an end, or with a key that is no text, or twice."""


@contextmanager
def passing_reader() -> Iterator[YAML]:
    """A reader of plain YAML, for once.

    Its parts refer to one another: that ring is broken, as the garbage collector finds it late, and
    some twenty files that were read again would wait for it.
    """
    reader = YAML(typ="safe", pure=True)
    try:
        yield reader
    finally:
        parser = reader.parser
        for part in (parser, reader):
            vars(part).clear()


def read_yaml(text: str, *, once: bool = False) -> object:
    """The first document of *text*: mappings and lists that know their lines, and scalars.

    Args:
        once: whether a key may stand only once in a mapping.

    Raises:
        ruamel.yaml.error.YAMLError: it is no YAML.
    """
    with passing_reader() as reader:
        root = next(iter(reader.compose_all(text)), None)
    reading = _Composing()
    value = None if root is None else reading.value(root, 0)
    if once and reading.repeated:
        key = reading.repeated[0]
        raise UnusableYaml(
            problem=f'found duplicate key "{key.value}"', problem_mark=key.start_mark
        )
    return value


class _Composing:
    """One document while it is read; an anchor's value is made once."""

    def __init__(self) -> None:
        self._made: dict[int, object] = {}
        self.repeated: list[ScalarNode] = []

    def value(self, node: YamlNode, depth: int) -> object:
        if depth > MAX_DEPTH:
            raise UnusableYaml(problem="it is nested without end", problem_mark=node.start_mark)
        if isinstance(node, ScalarNode):
            return _scalar(node)
        if id(node) not in self._made:
            if isinstance(node, MappingNode):
                self._made[id(node)] = self._mapping(node, depth)
            elif isinstance(node, SequenceNode):
                self._made[id(node)] = self._list(node, depth)
        return self._made[id(node)]

    def _list(self, node: SequenceNode, depth: int) -> CommentedSeq:
        made = CommentedSeq()
        for i, item in enumerate(node.value):
            made.append(self.value(item, depth + 1))
            made.lc.add_idx_line_col(i, [item.start_mark.line, item.start_mark.column])
        if node.flow_style:
            made.fa.set_flow_style()
        return made

    def _mapping(self, node: MappingNode, depth: int) -> CommentedMap:
        made = CommentedMap()
        merged: list[YamlNode] = []
        for key_node, value_node in node.value:
            if key_node.tag == IGNORED:
                continue
            if key_node.value == MERGED and not key_node.style:
                is_list = isinstance(value_node, SequenceNode)
                merged += value_node.value if is_list else [value_node]
                continue
            if not isinstance(key_node, ScalarNode):
                raise UnusableYaml(
                    problem="a key is text, not a mapping or a list",
                    problem_mark=key_node.start_mark,
                )
            key = str(key_node.value)
            if key in made:
                self.repeated.append(key_node)
            made[key] = self.value(value_node, depth + 1)
            mark, value_mark = key_node.start_mark, value_node.start_mark
            place = [mark.line, mark.column, value_mark.line, value_mark.column]
            made.lc.add_kv_line_col(key, place)
        for source in merged:
            inherited = self.value(source, depth + 1)
            if isinstance(inherited, dict):
                for key, value in inherited.items():
                    made.setdefault(key, value)
        if node.flow_style:
            made.fa.set_flow_style()
        return made


def _scalar(node: ScalarNode) -> object:
    text = str(node.value)
    if not node.style:
        return plain_scalar(text)
    # JSON writes a letter beyond 16 bits as two escapes, which YAML does not join.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain_scalar(text: str) -> object:
    """What a scalar without quotes is.

    >>> [plain_scalar(text) for text in ("yes", "010", "1.10", "yEs", "~", "08")]
    [True, 8, '1.10', 'yEs', None, '08']
    """
    if text in NULLS:
        return None
    if WHOLE.fullmatch(text):
        return _whole(text)
    if text in (text.lower(), text.upper(), text.capitalize()) and text.lower() in TRUTHS:
        return TRUTHS[text.lower()]
    return PlainScalarString(text) if BROKEN.fullmatch(text) else text


def _whole(text: str) -> int:
    digits = text.lstrip("+-").lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    return int(digits, base) * (-1 if text.startswith("-") else 1)
