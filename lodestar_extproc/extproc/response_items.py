"""What is seen of an item of the Responses API that is no message: a call, its result, a reference.

There are ever new ones, of new tools; what is not known to be hidden makes them different.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any

from lodestar_extproc.extproc.media import is_cache_marker

_UNSEEN = frozenset(
    (
        *("role", "content", "reasoning", "reasoning_content", "thinking"),  # written by name
        *("id", "type", "index", "status", "signature", "annotations", "logprobs"),
        *("encrypted_content", "created_by", "phase"),
    )
)
_TOLD_BY = MappingProxyType({"item_reference": "id", "compaction": "encrypted_content"})
"""Items that stand for something by a name or a secret: it is all that tells them apart."""


def seen_of_item(item: Mapping[str, Any]) -> AbstractSet[str]:
    """The names of its fields that a model is shown something of.

    >>> sorted(seen_of_item({"type": "mcp_call", "id": "mcp_1", "name": "f", "error": "timeout"}))
    ['error', 'name']
    """
    kind = item.get("type")
    told_by = _TOLD_BY.get(kind) if isinstance(kind, str) else None
    seen = {name for name in item.keys() - _UNSEEN if not is_cache_marker(name, item[name])}
    return seen | {told_by} if told_by is not None and told_by in item else seen
