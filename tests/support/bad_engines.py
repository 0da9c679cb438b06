"""A pool in virtual time of which one engine answers wrongly: what a router is told, and chooses."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from builders import a_prompt, a_request, a_router
from lodestar_extproc.completion import (
    AnswerForm,
    AnswerReport,
    Completion,
    FirstToken,
    Outcome,
)

TTFT_S, GENERATION_S, SOON_S = 0.4, 1.0, 0.01
N_CONVERSATIONS = 20


@dataclass(frozen=True)
class Fault:
    """What a bad engine's answers look like to the edge.

    Attributes:
        first_token: the form of what comes first; None for nothing.
        ends: it ends at all.
        report: what the observer reads by the end; None where it read nothing of use.
    """

    first_token: AnswerForm | None = None
    after_s: float = SOON_S
    ends: bool = True
    report: dict | None = None
    outcome: Outcome = Outcome.SERVED
    end: tuple = ()


def status(code: int, **changes) -> Fault:
    outcome = Outcome.FAILED if code >= 500 else Outcome.SERVED
    return Fault(outcome=outcome, end=(("response_code", code), *changes.items()))


FAULTS = {
    "a page": Fault(report={"form": AnswerForm.FOREIGN}),
    "nothing": Fault(end=(("is_empty", True),)),
    "no content": status(204),
    "only [DONE]": Fault(report={"form": AnswerForm.NOTHING}),
    "a redirection": status(302),
    "401": status(401),
    "403": status(403),
    "404": status(404),
    "429": status(429),
    "429 with a time": status(429, retry_after_s=1.0),
    "503": status(503),
    "500": status(500),
    "an abort": Fault(report={"failed": True}),
    "a token, then an abort": Fault(AnswerForm.STREAM, report={"failed": True}),
    "a token, then the end": Fault(AnswerForm.STREAM, report={"form": AnswerForm.UNFINISHED}),
    "a token, then silence": Fault(AnswerForm.STREAM, ends=False),
    "text": Fault(AnswerForm.FOREIGN, report={"form": AnswerForm.FOREIGN}),
    "tokens at once": Fault(AnswerForm.STREAM, 1e-4, report={"form": AnswerForm.STREAM}),
    "a token, then a reset": Fault(
        AnswerForm.STREAM, outcome=Outcome.FAILED, end=(("flags", ("UC",)),)
    ),
    "resets": Fault(outcome=Outcome.FAILED, end=(("flags", ("UC",)),)),
}


class BadEngine:
    """One engine of *n* answers by *fault*, until it is mended.

    Attributes:
        chosen: whether the bad one was chosen, request by request.
    """

    def __init__(self, fault: Fault, n: int = 3, interval_s: float = 0.1, **settings) -> None:
        self.fault: Fault | None = fault
        self.router = a_router(n, **{"frozen_after_s": 1.0} | settings)
        self.bad = self.router.fleet.endpoints[0].address
        self.chosen: list[bool] = []
        self.now_s = 0.0
        self._rng = random.Random(5)
        self._interval_s = interval_s
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._turns = [0] * N_CONVERSATIONS
        self._numbers = itertools.count()

    def run(self, n_requests: int) -> None:
        """Requests of conversations that grow."""
        for _ in range(n_requests):
            self.now_s += self._rng.expovariate(1 / self._interval_s)
            self._pass_until(self.now_s)
            i = self._rng.randrange(N_CONVERSATIONS)
            self._turns[i] += 1
            self._ask(a_prompt(1050 + 50 * min(self._turns[i], 10), seed=i), session=i)

    def share(self, after: int, until: int | None = None) -> float:
        """Of the bad one, among the requests from number *after* on."""
        chosen = self.chosen[after:until]
        return sum(chosen) / len(chosen)

    def _ask(self, prompt: bytes, session: int) -> None:
        request = a_request(prompt, session=session)
        decision = self.router.route(request, request_id="", at_s=self.now_s)
        self.chosen.append(decision.address == self.bad)
        wrong = self.fault if self.chosen[-1] else None
        if wrong is None:
            ttft_s = TTFT_S * self._rng.uniform(0.8, 1.2)
            self._at(ttft_s, lambda: self._first_token(decision, AnswerForm.STREAM))
            self._go_on(decision, ttft_s)
            self._at(ttft_s + GENERATION_S, lambda: self._end(decision))
            return
        watched: list[bool] = []
        if wrong.first_token is not None:
            form = wrong.first_token
            self._at(wrong.after_s, lambda: watched.append(self._first_token(decision, form)))
        if wrong.ends:
            self._at(2 * wrong.after_s, lambda: self._end_wrongly(decision, wrong, watched))

    def _go_on(self, decision, ttft_s: float) -> None:
        for i in range(1, 10):
            at_s = ttft_s + GENERATION_S * i / 10
            self._at(at_s, lambda: self.router.progressed(decision.decision_id, self.now_s))

    def _first_token(self, decision, form: AnswerForm) -> bool:
        watched = self.router.draw_full_observation(decision.decision_id)
        event = FirstToken(
            decision.decision_id, self.now_s, decision.address, form=form, watched=watched
        )
        self.router.first_token(event)
        return watched

    def _end(self, decision) -> None:
        end = Completion(
            self.now_s,
            Outcome.SERVED,
            decision_id=decision.decision_id,
            served=decision.address,
            response_code=200,
        )
        self.router.complete(end)

    def _end_wrongly(self, decision, wrong: Fault, watched: list[bool]) -> None:
        # After a first token the rest is seen of those that are watched.
        if wrong.report is not None and all(watched):
            self.router.report(AnswerReport(decision.decision_id, **wrong.report))
        values = {"response_code": 200, "served": decision.address} | dict(wrong.end)
        self.router.complete(
            Completion(self.now_s, wrong.outcome, decision_id=decision.decision_id, **values)
        )

    def _at(self, after_s: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._events, (self.now_s + after_s, next(self._numbers), action))

    def _pass_until(self, at_s: float) -> None:
        now_s = self.now_s
        while self._events and self._events[0][0] <= at_s:
            self.now_s, _, action = heapq.heappop(self._events)
            action()
        self.now_s = max(now_s, at_s)
