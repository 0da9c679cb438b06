"""YamlText: a YAML document with the places of its values, and its text after one change.

Only the lines of the change differ: everything else stays byte for byte.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, ScalarNode, SequenceNode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ruamel.yaml.nodes import Node as YamlNode

    from lodestar_extproc.config.node import Key

NO_WRAP = 1 << 20
"""Columns: ruamel wraps long lines, which are nobody's to wrap."""


class YamlText:
    """The first document of a YAML text."""

    def __init__(self, text: str) -> None:
        self._text = text
        documents = (node for node in YAML(typ="rt").compose_all(text) if node is not None)
        self._root: YamlNode | None = next(documents, None)
        self._indented_lists = any(_indented_lists(self._root)) if self._root else False

    def depth_of(self, path: tuple[Key, ...]) -> int:
        """How many keys of *path* lead to values written at their own place.

        Fewer than all where one is missing, is nothing, or stands elsewhere by an alias.
        """
        node, depth = self._root, 0
        for key in path:
            child = _child(node, key)
            if (
                child is None
                or _is_alias(child)
                or (depth + 1 < len(path) and _is_scalar(child[1]))
            ):
                break
            node, depth = child[1], depth + 1
        return depth

    def with_value(self, path: tuple[Key, ...], value: Any) -> str:
        """The text with *value* at *path*, whose parent is written at its own place."""
        container, key = self._collection(path[:-1]), path[-1]
        child = _child(container, key)
        if child is not None:
            return self._replaced(container, child, value)
        if container.flow_style or not container.value:
            return self._in_flow(container, f"{_inline({key: value})[1:-1]}")
        column = container.value[0][0].start_mark.column
        return self._after_line(_content_end(container), self._block({key: value}, column))

    def with_item(self, path: tuple[Key, ...], index: int, value: Any) -> str:
        """The text with *value* as element *index* of the list at *path*."""
        items = self._collection(path)
        if items.flow_style or not items.value:
            at = items.value[index].start_mark.index if index < len(items.value) else None
            return self._in_flow(items, _inline(value), at)
        lines = self._block([value], items.start_mark.column)
        if index:
            return self._after_line(_content_end(items.value[index - 1]), lines)
        start = self._line_start_above_comments(items.start_mark.index)
        return f"{self._text[:start]}{lines}\n{self._text[start:]}"

    def without(self, path: tuple[Key, ...]) -> str:
        """The text without the entry or element at *path*, which has others beside it."""
        container, key = self._collection(path[:-1]), path[-1]
        starts = [_start(entry) for entry in container.value]
        i = key if isinstance(key, int) else _names(container).index(key)
        end = _content_end(_value(container.value[i]))
        if container.flow_style:
            if i + 1 < len(starts):
                return self._text[: starts[i]] + self._text[starts[i + 1] :]
            return self._text[: _content_end(_value(container.value[i - 1]))] + self._text[end:]
        if i == 0:
            # The first key of a list's element shares its line with the dash.
            dash = 2 if isinstance(container, SequenceNode) else 0
            return self._text[: starts[0] - dash] + self._text[starts[1] - dash :]
        start = self._text.rfind("\n", 0, starts[i])
        return self._text[:start] + self._text[self._line_end(end) :]

    # -- writing -------------------------------------------------------------------------------

    def _replaced(self, container: CollectionNode, child: tuple[int, YamlNode], value: Any) -> str:
        after_key, old = child
        end = after_key if _is_empty(old) else max(after_key, _content_end(old))
        if _is_alias(child):
            end = self._alias_end(after_key)
        in_list = isinstance(container, SequenceNode)
        elsewhere = _is_alias(child) or _is_empty(old) or (not in_list and _is_block(old))
        start = after_key if elsewhere else old.start_mark.index
        if container.flow_style or not isinstance(value, (dict, list)) or not value:
            space = "" if start != after_key or in_list else " "
            return f"{self._text[:start]}{space}{_inline(value)}{self._text[end:]}"
        if in_list:
            lines = self._block([value], container.start_mark.column).lstrip(" -")
            return self._text[:start] + lines + self._text[end:]
        column = container.value[0][0].start_mark.column + (2 if isinstance(value, dict) else 0)
        if isinstance(value, list) and self._indented_lists:
            column += 2
        return f"{self._text[:after_key]}\n{self._block(value, column)}{self._text[end:]}"

    def _in_flow(self, container: CollectionNode, inline: str, at: int | None = None) -> str:
        """*inline* inside the braces of *container*: before *at*, else at the end."""
        if at is not None:
            return f"{self._text[:at]}{inline}, {self._text[at:]}"
        at = _content_end(_value(container.value[-1])) if container.value else None
        if at is None:
            at = container.end_mark.index - 1
            return self._text[:at] + inline + self._text[at:]
        return f"{self._text[:at]}, {inline}{self._text[at:]}"

    def _block(self, value: Any, column: int) -> str:
        """Lines of *value*, indented by *column*, without a line end."""
        yaml = YAML()
        yaml.width = NO_WRAP
        if self._indented_lists:
            yaml.indent(mapping=2, sequence=4, offset=2)
        out = io.StringIO()
        yaml.dump(value, out)
        lines = out.getvalue().rstrip("\n").split("\n")
        if isinstance(value, list) and self._indented_lists:
            lines = [line[2:] for line in lines]
        return "\n".join(" " * column + line for line in lines)

    def _after_line(self, index: int, lines: str) -> str:
        end = self._line_end(index)
        return f"{self._text[:end]}\n{lines}{self._text[end:]}"

    # -- places --------------------------------------------------------------------------------

    def _collection(self, path: tuple[Key, ...]) -> CollectionNode:
        node = self._root
        for key in path:
            child = _child(node, key)
            assert child is not None
            node = child[1]
        assert isinstance(node, CollectionNode)
        return node

    def _line_end(self, index: int) -> int:
        end = self._text.find("\n", index)
        return len(self._text) if end < 0 else end

    def _alias_end(self, after_key: int) -> int:
        end = self._text.index("*", after_key)
        while end < len(self._text) and self._text[end] not in " ,]}\r\n\t":
            end += 1
        return end

    def _line_start_above_comments(self, index: int) -> int:
        start = self._text.rfind("\n", 0, index) + 1
        while start:
            above = self._text.rfind("\n", 0, start - 1) + 1
            if not self._text[above:start].lstrip().startswith("#"):
                break
            start = above
        return start


def _child(node: YamlNode | None, key: Key) -> tuple[int, YamlNode] | None:
    """Where the key ends, or the element begins, and the value."""
    if isinstance(node, MappingNode):
        for name, value in node.value:
            if isinstance(name, ScalarNode) and name.value == str(key):
                return name.end_mark.index + 1, value
    if isinstance(node, SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark.index, node.value[key]
    return None


def _is_alias(child: tuple[int, YamlNode]) -> bool:
    after_key, value = child
    return bool(value.start_mark.index < after_key - 1)


def _is_scalar(node: YamlNode) -> bool:
    return isinstance(node, ScalarNode)


def _is_block(node: YamlNode) -> bool:
    return isinstance(node, CollectionNode) and not node.flow_style


def _is_empty(node: YamlNode) -> bool:
    return bool(node.start_mark.index == node.end_mark.index)


def _content_end(node: YamlNode) -> int:
    """Where the last character of *node* ends, comments and blank lines after it left out."""
    if isinstance(node, ScalarNode) and node.style in ("|", ">"):
        written: str = node.start_mark.buffer[node.start_mark.index : node.end_mark.index]
        return int(node.start_mark.index) + len(written.rstrip())
    if not isinstance(node, CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    # A value by an alias stands somewhere else, and what is nothing is written nowhere.
    elsewhere = isinstance(last, tuple) and last[1].start_mark.index <= last[0].end_mark.index
    if isinstance(last, tuple) and (elsewhere or _is_empty(last[1])):
        return int(last[0].end_mark.index) + 1
    return _content_end(_value(last))


def _start(entry: Any) -> int:
    return int((entry[0] if isinstance(entry, tuple) else entry).start_mark.index)


def _value(entry: Any) -> YamlNode:
    node: YamlNode = entry[1] if isinstance(entry, tuple) else entry
    return node


def _names(node: YamlNode) -> list[str]:
    return [name.value for name, _ in node.value]


def _indented_lists(node: YamlNode) -> Iterator[bool]:
    """For each list under a key, whether it stands further in than that key."""
    for entry in [] if isinstance(node, ScalarNode) else node.value:
        value = _value(entry)
        own = value.start_mark.index >= _start(entry)
        if isinstance(entry, tuple) and isinstance(value, SequenceNode) and not value.flow_style:
            yield own and value.start_mark.column > entry[0].start_mark.column
        if own:
            yield from _indented_lists(value)


def _inline(value: Any) -> str:
    yaml = YAML()
    yaml.width = NO_WRAP
    yaml.default_flow_style = True
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    out = io.StringIO()
    yaml.dump(value, out)
    return out.getvalue().removesuffix("...\n").strip()
