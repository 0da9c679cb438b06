"""mended(): a file's text after cures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ruamel.yaml.error import YAMLError

from lodestar_extproc.check.mending.json_patch import applied, value_at
from lodestar_extproc.check.mending.yaml_text import YamlText
from lodestar_extproc.config.yaml_tree import read_yaml

if TYPE_CHECKING:
    from lodestar_extproc.check.finding import Patch


class CannotMendError(Exception):
    """A change that cannot be written into this text without another change beside it."""


@dataclass(frozen=True, slots=True)
class _Document:
    """A text and what it says."""

    text: str
    value: Any


def mended(text: str, patches: tuple[Patch, ...]) -> str:
    """*text*, YAML or JSON, with *patches* applied; comments and order stay.

    Raises:
        CannotMendError: a patch has no place there, or would change something else, too.
    """
    if (value := _json(text)) is not None:
        return json.dumps(_applied(value, patches), indent=2, ensure_ascii=False) + "\n"
    newline = "\r\n" if "\r\n" in text else "\n"
    document = _Document(text.replace("\r\n", "\n"), _read(text))
    for patch in patches:
        document = _patched(document, patch)
    return document.text.replace("\n", newline)


def _json(text: str) -> Any:
    """What *text* says if it is JSON; YAML may begin with a brace, too."""
    try:
        return json.loads(text) if text.lstrip().startswith("{") else None
    except ValueError:
        return None


def _patched(document: _Document, patch: Patch) -> _Document:
    wanted = _applied(document.value, (patch,))
    text = _written(YamlText(document.text), patch, wanted)
    try:
        read = _read(text)
    except CannotMendError as error:
        raise CannotMendError(_ELSEWHERE.format(_words(patch))) from error
    # What stands behind an anchor may be meant by others, too.
    if read != wanted:
        raise CannotMendError(_ELSEWHERE.format(_words(patch)))
    return _Document(text, wanted)


def _written(text: YamlText, patch: Patch, wanted: Any) -> str:
    *above, last = patch.path
    depth = text.depth_of(patch.path)
    if depth < len(above):
        # Something above is missing or an alias: the whole of it is written there.
        path = patch.path[: depth + 1]
        return text.with_value(path, value_at(wanted, path))
    parent = value_at(wanted, tuple(above))
    if patch.value is None:
        if not parent:
            return text.with_value(tuple(above), parent)
        return text.without(patch.path)
    if isinstance(last, int) and patch.inserts:
        return text.with_item(tuple(above), last, patch.value)
    return text.with_value(patch.path, patch.value)


_ELSEWHERE = "cannot be written at {} without changing another place: write it by hand"


def _words(patch: Patch) -> str:
    return "/".join(str(key) for key in patch.path)


def _applied(value: Any, patches: tuple[Patch, ...]) -> Any:
    try:
        return applied(value, patches)
    except (LookupError, TypeError) as error:
        raise CannotMendError(f"has no place {error}") from error


def _read(text: str) -> Any:
    """What *text* says, with a copy in place of each alias: a change is meant for one place.

    Raises:
        CannotMendError: it is no YAML.
    """
    try:
        return _unshared(read_yaml(text))
    except (YAMLError, ValueError, RecursionError) as error:
        raise CannotMendError(f"it is no YAML: {error}") from error


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(each) for key, each in value.items()}
    return [_unshared(each) for each in value] if isinstance(value, list) else value
