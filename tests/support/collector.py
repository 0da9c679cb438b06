"""What the garbage collector would have to find, of what a test makes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def only_when_told() -> Iterator[None]:
    """The collector looks when it is told to, and then at what was made inside alone.

    At all that some thousand tests have left it would look for a second.
    """
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def n_alive(kind: type) -> int:
    """Objects of *kind* that the collector looks at: inside of that, those that were made there."""
    return sum(isinstance(each, kind) for each in gc.get_objects())
