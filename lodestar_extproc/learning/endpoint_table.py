"""EndpointTable: rows of numbers by endpoint, gathered for a decision in one indexing.

It knows nothing of what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.endpoint import Endpoint, FloatArray


class EndpointTable:
    """One row an address, or an accelerator, or for all the others.

    An endpoint without a row of its own has its accelerator's; without that, the default.

    Args:
        default: [width], the row of every endpoint that has no other.
    """

    def __init__(self, default: FloatArray) -> None:
        self._values: FloatArray = np.array([default], dtype=np.float64)
        self._rows: dict[tuple[str, str], int] = {}
        self._free: list[int] = []
        self._gathered: tuple[Sequence[Endpoint], NDArray[np.intp]] | None = None
        self._at_hand: FloatArray | None = None

    def set_default(self, row: FloatArray | float) -> None:
        """Replace the default row."""
        self._values[0] = row
        self._at_hand = None

    def set_accelerator(self, accelerator: str, row: FloatArray | float) -> None:
        """Replace the row of an accelerator's endpoints that have none of their own."""
        self._put(("accelerator", accelerator), row)

    def set(self, address: str, row: FloatArray | float) -> None:
        """Replace an endpoint's own row."""
        self._put(("address", address), row)

    def update(self, endpoints: Sequence[Endpoint], rows: FloatArray) -> None:
        """Replace the own rows of all *endpoints*, [n, width]."""
        for endpoint in endpoints:
            if ("address", endpoint.address) not in self._rows:
                self._put(("address", endpoint.address), self._values[0])
        self.gather(endpoints)
        assert self._gathered is not None
        self._values[self._gathered[1]] = rows
        self._at_hand = None

    def drop(self, address: str) -> None:
        """Forget an endpoint's own row."""
        row = self._rows.pop(("address", address), None)
        if row is not None:
            self._free.append(row)
            self._gathered = None

    def retain(self, endpoints: Sequence[Endpoint]) -> None:
        """Forget the own rows of all but *endpoints*."""
        if self._gathered is not None and self._gathered[0] is endpoints:
            return
        stay = {e.address for e in endpoints}
        gone = [name for kind, name in self._rows if kind == "address" and name not in stay]
        for address in gone:
            self.drop(address)

    def row(self, address: str, accelerator: str) -> FloatArray:
        """The row that counts for one endpoint, [width]."""
        found: FloatArray = self._values[self._find(address, accelerator)]
        return found

    def gather(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """The rows of *endpoints*, [n, width]: a copy, and the same one until a row changes."""
        # Consecutive decisions see the same endpoints: look them up once.
        known = self._gathered
        if known is None or (known[0] is not endpoints and known[0] != endpoints):
            rows = np.array([self._find(e.address, e.accelerator) for e in endpoints], np.intp)
            known, self._at_hand = (endpoints, rows), None
            self._gathered = known
        if self._at_hand is None:
            self._at_hand = self._values.take(known[1], axis=0)
        return self._at_hand

    def scale(self, factor: float) -> None:
        """Multiply every row."""
        self._values *= factor
        self._at_hand = None

    def _find(self, address: str, accelerator: str) -> int:
        row = self._rows.get(("address", address))
        if row is None:
            row = self._rows.get(("accelerator", accelerator), 0)
        return row

    def _put(self, key: tuple[str, str], values: FloatArray | float) -> None:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._new_row()
            self._gathered = None
        self._values[row] = values
        self._at_hand = None

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        self._values = np.vstack([self._values, self._values[:1]])
        return len(self._values) - 1
