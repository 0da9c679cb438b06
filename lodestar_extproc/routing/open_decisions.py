"""OpenDecisions: decisions whose answers have not ended. Nobody else joins by id."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from lodestar_extproc.completion import AnswerReport
from lodestar_extproc.decision import Decision
from lodestar_extproc.routing.ended_request import ObservedFirstToken


@dataclass(slots=True)
class OpenDecision:
    """One decision and what has been heard of its answer.

    Attributes:
        stream_id: ours, of the stream it was made on; empty where there is none.
        report: what the engine said in its answer, where that was read.
    """

    decision: Decision
    stream_id: str = ""
    first_token: ObservedFirstToken | None = None
    report: AnswerReport | None = None


class OpenDecisions:
    """Decisions by id, oldest first, found also by the stream they were made on.

    Both ids are our own. Envoy's request id joins nothing: clients choose it, and a mesh gives one
    to all calls of one action.
    """

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, OpenDecision] = OrderedDict()
        self._id_of_stream: dict[str, str] = {}

    def __iter__(self) -> Iterator[OpenDecision]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, decision: Decision, stream_id: str = "") -> None:
        """Remember *decision* until it is taken."""
        self._by_id[decision.decision_id] = OpenDecision(decision, stream_id)
        if stream_id:
            self._id_of_stream[stream_id] = decision.decision_id

    def get(self, decision_id: str) -> OpenDecision | None:
        """Look without taking."""
        return self._by_id.get(decision_id)

    def decision(self, decision_id: str) -> Decision | None:
        """The decision alone; None for an id that is not open."""
        entry = self._by_id.get(decision_id)
        return None if entry is None else entry.decision

    def address_of(self, decision_id: str) -> str | None:
        """Where the request was sent; None for an id that is not open."""
        found = self.decision(decision_id)
        return None if found is None else found.address

    def take(self, decision_id: str, stream_id: str = "") -> OpenDecision | None:
        """Remove and return a decision; by *stream_id* where *decision_id* is empty."""
        found = self._by_id.pop(decision_id or self._id_of_stream.get(stream_id, ""), None)
        if found is not None:
            self._id_of_stream.pop(found.stream_id, None)
        return found

    def older_than(self, at_s: float) -> list[str]:
        """Ids of the decisions made before *at_s*, oldest first."""
        old = []
        for decision_id, entry in self._by_id.items():
            if entry.decision.at_s >= at_s:
                break
            old.append(decision_id)
        return old
