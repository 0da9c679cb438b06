"""ReceiveWindow: how much a client may still send, on a connection or a stream."""

from __future__ import annotations


class ReceiveWindow:
    """Grants again what was taken, by halves: a frame for each message would be a waste."""

    __slots__ = ("_left", "_n_bytes", "_taken")

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = self._left = n_bytes
        self._taken = 0

    def take(self, n_bytes: int) -> bool:
        """So many have come; whether that was allowed."""
        self._left -= n_bytes
        self._taken += n_bytes
        return self._left >= 0

    @property
    def is_worth_granting(self) -> bool:
        """Whether half of it is used up."""
        return self._taken >= self._n_bytes // 2

    def grant(self) -> int:
        """So many are granted again; the client has to be told."""
        granted, self._taken = self._taken, 0
        self._left += granted
        return granted
