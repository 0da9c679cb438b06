"""deep_state(): an object's whole state as plain values, to be compared with another's.

What no setting decides is left out: states of random generators, functions, and event loops; by
which number a cache is known in a tree with others; and what the kernel was last called with.
"""

from __future__ import annotations

import inspect
import random
from collections import abc, deque
from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np

from lodestar_extproc.kernel.structures import EquationArrays, MemoryArrays
from lodestar_extproc.policies.compiled_weighing import CompiledWeighing

NUMBERS_IN_A_TREE = frozenset({"_bit", "_free", "_n_places", "_places", "place"})
PLAIN = (str, bytes, int, bool, type(None), Enum)


def deep_state(thing: object) -> object:
    """Nested tuples; an object that is met again stands there by its number."""
    return _State().of(thing)


class _State:
    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, object]] = {}

    def of(self, thing: Any) -> object:
        if isinstance(thing, PLAIN):
            return thing
        if isinstance(thing, float | np.generic):
            return repr(thing)  # NaN is NaN
        if isinstance(thing, np.ndarray | memoryview):
            return repr(np.asarray(thing).tolist())
        if inspect.isroutine(thing) or inspect.isclass(thing):
            return thing.__qualname__
        if id(thing) in self._seen:
            return "again", self._seen[id(thing)][0]
        self._seen[id(thing)] = len(self._seen), thing  # held, so that no id is used twice
        return type(thing).__qualname__, *self._inside(thing)

    def _inside(self, thing: Any) -> Iterator[object]:
        if isinstance(thing, abc.Mapping):
            yield from ((self.of(key), self.of(value)) for key, value in thing.items())
        elif isinstance(thing, abc.Set):
            yield from sorted(map(repr, thing))
        elif isinstance(thing, list | tuple | deque):
            yield from map(self.of, thing)
        elif isinstance(thing, EquationArrays):
            yield from map(self.of, thing.__getstate__().values())
        elif not isinstance(thing, random.Random | MemoryArrays | CompiledWeighing):
            for name, value in _attributes(thing):
                if name not in NUMBERS_IN_A_TREE:
                    yield name, self.of(value)


def _attributes(thing: object) -> Iterator[tuple[str, Any]]:
    if type(thing).__module__.startswith("asyncio"):
        return
    yield from sorted(getattr(thing, "__dict__", {}).items())
    for owner in type(thing).__mro__:
        slots = getattr(owner, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                yield name, getattr(thing, name)
