"""StringEdges: where the strings of a JSON text begin and end, found in slices.

It knows quotes and backslashes only. Numpy finds them; no object is made for each.
"""

from __future__ import annotations

import numpy as np

SLICE_BYTES = 128 * 2**10
"""Looked at in one go: half a millisecond, far below the 10 ms that others may be held up."""
MAX_BACKSLASHES = 64
"""In a row before a quote; each costs a step. What has more is taken for 64 of them, wrongly at
worst: the parts do not parse then, and the body is known by its size."""

_QUOTE, _BACKSLASH = ord('"'), ord("\\")
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
Positions = np.ndarray[tuple[int], np.dtype[np.intp]]


class StringEdges:
    r"""Follows one text from its beginning, slice by slice.

    >>> edges = StringEdges(b'{"a": "b,\\"c", "d": 1}')
    >>> bytes(edges.outside(0))
    b'{": ", ": 1}'
    >>> edges.inside
    False
    """

    def __init__(self, text: bytes) -> None:
        self._all: Bytes = np.frombuffer(text, np.uint8)
        self.inside = False

    def quotes(self, start: int) -> Positions:
        """Positions of the quotes from *start* on, one slice, that begin or end a string."""
        quotes = np.flatnonzero(self._all[start : start + SLICE_BYTES] == _QUOTE) + start
        escaped = np.zeros(len(quotes), np.bool_)
        at, n_back = np.arange(len(quotes)), 1
        while n_back <= MAX_BACKSLASHES:
            at = at[self._all[quotes[at] - n_back] == _BACKSLASH]
            if not len(at):
                break
            escaped[at] ^= True
            n_back += 1
        own: Positions = quotes[~escaped]
        return own

    def outside(self, start: int) -> Bytes:
        """What stands in no string of the slice from *start*; slices in their order."""
        characters = self._all[start : start + SLICE_BYTES]
        quotes = self.quotes(start) - start
        # Runs of one kind are written at once: a sum over all characters takes ten times as long.
        lengths = np.diff(quotes, prepend=0, append=len(characters))
        in_string = (np.arange(len(lengths)) + self.inside) % 2 == 1
        outside: Bytes = characters[~np.repeat(in_string, lengths)]
        self.inside ^= bool(len(quotes) % 2)
        return outside
