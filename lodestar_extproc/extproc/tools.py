"""write_tools(): tools and documents, as chat templates render them before the conversation."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from lodestar_extproc.extproc.canonical import FIELD, MESSAGE_END, PART_END, PromptWriter
from lodestar_extproc.extproc.media import is_cache_marker

_FIELDS = frozenset(("tools", "functions", "documents"))
_KEYS = ("type", "name", "description", "parameters", "input_schema")
"""What engines make a tool of, in their order; a client's order is not seen."""
_SECRETS = ("authorization", "headers")
"""What a server of tools is asked with: no model sees it, and tokens are renewed."""
_SCHEMAS = ("parameters", "input_schema")
"""A template renders these as they came."""


def has_tools(body: Mapping[str, Any]) -> bool:
    """Whether *body* names anything that `write_tools` writes."""
    return not _FIELDS.isdisjoint(body)


def write_tools(out: PromptWriter, body: Mapping[str, Any]) -> Generator[None, None, None]:
    """Write the tools of *body* and its documents, each a step."""
    if body.get("documents"):
        out.is_plain = False  # most templates have no place for them
    for given in (body.get("tools") or body.get("functions"), body.get("documents")):
        for tool in out.steps(given):
            _tool(out, tool)
            out.mark(PART_END)
            yield
        if given:
            out.mark(MESSAGE_END)


def _tool(out: PromptWriter, tool: object) -> None:
    """A tool or document: known keys in one order, then the others in theirs."""
    if not isinstance(tool, dict):
        out.value(tool)
        return
    out.spend(len(tool))
    rest = sorted(set(tool).difference(_KEYS, _SECRETS if tool.get("type") == "mcp" else ()))
    for key in (*_KEYS, *rest):
        value = tool.get(key)
        if value is None or is_cache_marker(key, value):
            continue
        out.mark(FIELD)
        out.text(key)
        out.mark(FIELD)
        if key == "function":
            _tool(out, value)
        elif key in _SCHEMAS:
            out.value(value)
        else:
            out.sorted_value(value)
