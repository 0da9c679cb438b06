"""OpenDecisions: decisions whose answers have not ended. Nobody else joins by id."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from lodestar_extproc.completion import AnswerReport
from lodestar_extproc.decision import Decision
from lodestar_extproc.routing.ended_request import ObservedFirstToken


@dataclass(slots=True)
class OpenDecision:
    """One decision and what has been heard of its answer.

    Attributes:
        report: what the engine said in its answer, where that was read.
    """

    decision: Decision
    first_token: ObservedFirstToken | None = None
    report: AnswerReport | None = None


class OpenDecisions:
    """Decisions by id, oldest first, found also by Envoy's request id."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, OpenDecision] = OrderedDict()
        self._id_of_request: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, decision: Decision) -> None:
        """Remember *decision* until it is taken."""
        self._by_id[decision.decision_id] = OpenDecision(decision)
        if decision.request_id:
            self._id_of_request[decision.request_id] = decision.decision_id

    def get(self, decision_id: str) -> OpenDecision | None:
        """Look without taking."""
        return self._by_id.get(decision_id)

    def take(self, decision_id: str, request_id: str = "") -> OpenDecision | None:
        """Remove and return a decision; by *request_id* where *decision_id* is empty."""
        found = self._by_id.pop(decision_id or self._id_of_request.get(request_id, ""), None)
        if found is not None and found.decision.request_id:
            self._id_of_request.pop(found.decision.request_id, None)
        return found

    def older_than(self, at_s: float) -> list[str]:
        """Ids of the decisions made before *at_s*, oldest first."""
        old = []
        for decision_id, entry in self._by_id.items():
            if entry.decision.at_s >= at_s:
                break
            old.append(decision_id)
        return old
