"""Subset: the endpoints that a gateway, or a conformance test, allows one request to go to.

It knows addresses only; where a subset is written is the edge's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Subset:
    """`ip:port` allows one endpoint, `ip` all of that host's; without any, none is allowed.

    >>> "10.0.0.1:8000" in Subset.of(["10.0.0.1:8000, 10.0.0.2", "[fd00::1]"])
    True
    >>> "[fd00::1]:8000" in Subset.of(["[fd00::1]"]), "10.0.0.1:9000" in Subset.of(["10.0.0.1:80"])
    (True, False)
    """

    named: frozenset[str]

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """Of addresses, or of lists of them parted by commas; blanks mean nothing."""
        parts = (part.strip() for entry in entries for part in entry.split(","))
        return cls(frozenset(part for part in parts if part))

    def __contains__(self, address: str) -> bool:
        host = address.rpartition(":")[0]
        return not self.named.isdisjoint((address, host, host.strip("[]")))
