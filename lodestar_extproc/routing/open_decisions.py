"""OpenDecisions: decisions whose answers have not ended. It knows ids and times, nothing else."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from lodestar_extproc.completion import AnswerReport
from lodestar_extproc.decision import Decision


@dataclass(slots=True)
class OpenDecision:
    """One decision and what has been heard of its answer.

    Attributes:
        learned: a sample was made of it; there is one at most.
        body_began_before: something that was no token came before the first token.
        blamed: endpoints that were tried in vain have been blamed; they are once at most.
        report: what the engine said in its answer, where that was read.
    """

    decision: Decision
    first_token_at_s: float | None = None
    learned: bool = False
    body_began_before: bool = False
    blamed: bool = False
    report: AnswerReport | None = None

    @property
    def body_began_with_token(self) -> bool:
        """The first token was seen, and nothing came before it."""
        return self.first_token_at_s is not None and not self.body_began_before


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
