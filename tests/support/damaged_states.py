"""States of plain JSON types with one value replaced, wherever it stands."""

import copy

DAMAGES = (None, 0, -1, "x", [], [[0.0, 0.5]], 1e308)


def damaged(state, damages=DAMAGES):
    """*state* with each of its values replaced by each of *damages*; lists by their first value."""
    for place in list(_places(state)):
        for damage in damages:
            yield _replaced(state, place, damage)


def _places(state, path=()):
    yield path
    items = ()
    if isinstance(state, dict):
        items = state.items()
    elif isinstance(state, list):
        items = enumerate(state[:1])
    for key, value in items:
        yield from _places(value, (*path, key))


def _replaced(state, path, value):
    if not path:
        return value
    state = copy.copy(state)
    state[path[0]] = _replaced(state[path[0]], path[1:], value)
    return state
