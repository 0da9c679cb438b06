"""HeardEnds: what is heard here of a request's end goes to whoever decided on it.

An end and what the observer has to say come on streams of their own, which behind one cluster reach
different replicas: whoever decided on the request is told of both, and holds the one for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lodestar_extproc.completion import Completion
from lodestar_extproc.extproc.held_ends import HeldEnds


class OtherReplicas(Protocol):
    """Those beside us that decide; see `sharing/handover.py`."""

    def is_ours(self, own_id: str) -> bool:
        """Whether what has this id was decided on here."""

    def observed(self, decision_id: str) -> None:
        """Tell whose decision it was."""


class HeardEnds:
    """Passes on ends, and that observers have ended.

    Args:
        complete: is told of each end, ours and those of others.
        others: None for nobody.

    Attributes:
        ours: holds the ends of requests that were decided on here, heard here or elsewhere.
    """

    def __init__(
        self, complete: Callable[[Completion], object], others: OtherReplicas | None
    ) -> None:
        self.ours = HeldEnds(complete)
        self._complete = complete
        self._others = others

    def end(self, completion: Completion) -> None:
        """The access log told how a request ended."""
        own_id = completion.decision_id or completion.stream_id
        if self._others is None or self._others.is_ours(own_id):
            self.ours.end(completion)
        else:
            self._complete(completion)

    def observed(self, decision_id: str) -> None:
        """Nothing more will be told of the answer to this decision."""
        if self._others is None or self._others.is_ours(decision_id):
            self.ours.observed(decision_id)
        else:
            self._others.observed(decision_id)
