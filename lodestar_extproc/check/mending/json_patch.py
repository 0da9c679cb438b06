"""applied(): a document after patches, by RFC 6902."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lodestar_extproc.check.finding import Patch
    from lodestar_extproc.config.node import Key


def applied(document: Any, patches: Iterable[Patch]) -> Any:
    """A copy of *document* with *patches* applied, one after the other.

    Raises:
        LookupError, TypeError: a patch whose place is not there.
    """
    document = copy.deepcopy(document)
    for patch in patches:
        _apply(document, patch)
    return document


def value_at(document: Any, path: tuple[Key, ...]) -> Any:
    """What stands at *path*.

    Raises:
        LookupError, TypeError: nothing does.
    """
    for key in path:
        # A scalar has no places: an index of a text would be a letter.
        document = None if isinstance(document, str) else document[key]
    return document


def _apply(document: Any, patch: Patch) -> None:
    place, last = value_at(document, patch.path[:-1]), patch.path[-1]
    if patch.value is None:
        del place[last]
    elif patch.inserts:
        place.insert(last, copy.deepcopy(patch.value))
    else:
        place[last] = copy.deepcopy(patch.value)
