"""What every policy must pass: to rank is a question, whatever the traffic."""

from __future__ import annotations

import pickle
import random
from collections import deque
from types import MappingProxyType

import numpy as np

AT_HAND = frozenset(
    {
        "_gathered",
        "_limits",
        "features",
        "_features",
        "decode_context_tokens",
        "_decode_context_tokens",
        "held_tokens",
        "memory_used_ratio",
        "_known",
        "_at_hand",
        "_arrays_by_size",
        "_changed",
        "_factors",
        "_memory_arrays",
    }
)
"""What was computed once and is kept at hand: it changes no answer."""


def state_of(value, seen=None):
    """All that *value* holds, in a form that can be compared; each object once."""
    seen = {} if seen is None else seen
    if value is None or isinstance(value, bool | int | float | str | bytes | type):
        return repr(value)
    if id(value) in seen:
        return f"object {seen[id(value)][0]}"
    seen[id(value)] = len(seen), value  # kept, or another would have its id
    parts = _parts(value)
    if isinstance(parts, list):
        parts = [state_of(part, seen) for part in parts]
    return type(value).__name__, parts


def _parts(value):
    """A list of what *value* consists of, or all of it in one."""
    match value:
        case np.ndarray():
            found = (value.shape, value.tobytes())
        case random.Random():
            found = value.getstate()
        case dict() | MappingProxyType():
            found = [part for item in value.items() for part in item]
        case set() | frozenset():
            found = tuple(sorted(map(repr, value)))
        case list() | tuple() | deque():
            found = list(value)
        case _:
            found = _attributes(value)
    return found


def _attributes(value):
    slots = [s for c in type(value).__mro__ for s in getattr(c, "__slots__", ())]
    if not slots and not hasattr(value, "__dict__"):
        return _pickled(value)
    found = {s: getattr(value, s) for s in slots if hasattr(value, s)}
    found |= getattr(value, "__dict__", {})
    return [part for k, v in found.items() if k not in AT_HAND for part in (k, v)]


def _pickled(value):
    try:
        return pickle.dumps(value)
    except (TypeError, AttributeError, pickle.PicklingError):
        return repr(value)  # a function, a method


def same(one, other):
    """Whether two rankings are the same, number by number."""
    return state_of(one) == state_of(other)


class AskedOften:
    """The policy *inner*, asked again and again, and found to be what it was before.

    Args:
        shadows: asked in between.
        looked_at: besides the policies, what must not change.
        interval: every so many requests it is looked at closely, for that takes a while.
    """

    def __init__(self, inner, shadows=(), looked_at=lambda: (), interval=20):
        self.name, self.reads_demand = inner.name, inner.reads_demand
        self.reads_learner = inner.reads_learner
        self.n_looked = 0
        self._inner, self._shadows = inner, shadows
        self._looked_at, self._interval, self._n = looked_at, interval, 0

    def rank(self, candidates, rng):
        self._n += 1
        if self._n % self._interval:
            return self._inner.rank(candidates, rng)
        return self._closely(candidates, rng)

    def _closely(self, candidates, rng):
        world = (self._inner, self._shadows, candidates, self._looked_at())
        before, drawn = state_of(world), rng.getstate()
        answers = []
        for order in ([], self._shadows, self._shadows[::-1]):
            for shadow in order:
                shadow.rank(candidates, random.Random(self._n))
            rng.setstate(drawn)
            answers.append(self._inner.rank(candidates, rng))
        assert all(same(answer, answers[0]) for answer in answers)
        # What is left to chance may be drawn on, by whoever holds it.
        drawn_on = rng.getstate()
        rng.setstate(drawn)
        assert state_of(world) == before
        rng.setstate(drawn_on)
        self.n_looked += 1
        return answers[-1]

    def dispatched(self, candidates, ranking):
        self._inner.dispatched(candidates, ranking)
