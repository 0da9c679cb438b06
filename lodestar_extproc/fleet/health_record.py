"""HealthRecord: what is known for and against one endpoint. `Health` owns and judges it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lodestar_extproc.fleet.answer_rate import AnswerRate
from lodestar_extproc.fleet.failed_prompts import Prompt
from lodestar_extproc.fleet.health_state import HealthState

FIRST_EJECTION_S, EJECTION_GROWTH = 1.0, 2.0
"""Not tuned: long enough for a retry to go elsewhere, too short to miss a healthy endpoint."""
LONGEST_EJECTION_S = 30.0
"""Envoy's outlier detection takes a host out for as long at first (`base_ejection_time`)."""
FIRST_COOLING_S, COOLING_GROWTH, LONGEST_COOLING_S = 2.0, 4.0, 60.0
"""For an endpoint that answers, and wrongly: no retry goes past it, so every try is a user's.

Set so that, tried anew, it costs less than 3 % of the requests from the twentieth on.
"""
MAX_COUNTED = 6
"""Prompts that are told apart: twice as many as it takes to be taken out."""


@dataclass(slots=True)
class HealthRecord:
    """One endpoint's.

    Attributes:
        out_until_s: nothing is sent to it before; monotonic seconds.
        cooling: it is out for what it answered oddly.
        joins_as: its state while it is new and waits to be shown good.
        known_good: a probe or an answer has shown that it serves.
        ejections: how often it was taken out in a row; above 0 it is on probation.
        answers_wrongly: it was taken out for its answers: a first token proves nothing.
        breaks: ejections for answers that broke off in their middle, since its last success.
        errors, odd_answers: the prompts it answered so since its last success.
        rate: odd answers among all.
    """

    probe_failures: int = 0
    probe_successes: int = 0
    probe_down: bool = False
    asleep: bool = False
    frozen: bool = False
    joins_as: HealthState | None = None
    known_good: bool = False
    out_until_s: float = float("-inf")
    cooling: bool = False
    ejections: int = 0
    answers_wrongly: bool = False
    breaks: int = 0
    errors: set[object] = field(default_factory=set)
    odd_answers: set[object] = field(default_factory=set)
    rate: AnswerRate = field(default_factory=AnswerRate)

    def state(self, at_s: float) -> HealthState:
        """What the endpoint may be given now."""
        if self.probe_down:
            return HealthState.DOWN
        if self.asleep:
            return HealthState.SLEEPING
        if self.frozen:
            return HealthState.FROZEN
        if at_s < self.out_until_s:
            return HealthState.COOLING if self.cooling else HealthState.EJECTED
        if self.ejections:
            return HealthState.PROBATION
        return self.joins_as or HealthState.HEALTHY

    @property
    def is_suspect(self) -> bool:
        """Whether anything speaks against it, if not enough to take it out."""
        return bool(self.errors or self.odd_answers or self.ejections)

    @property
    def bars(self) -> bool:
        """Whether anything keeps requests from it, or did and has not been refuted."""
        return bool(
            self.probe_down or self.asleep or self.frozen or self.ejections or self.joins_as
        )

    @property
    def ejection_s(self) -> float:
        """How long it is left alone if it fails now."""
        return min(LONGEST_EJECTION_S, FIRST_EJECTION_S * EJECTION_GROWTH**self.ejections)

    @property
    def cooling_s(self) -> float:
        """How long it is left alone if it answers wrongly now."""
        return min(LONGEST_COOLING_S, FIRST_COOLING_S * COOLING_GROWTH**self.ejections)

    def serves(self) -> None:
        """A probe or an answer has shown it."""
        self.known_good, self.joins_as = True, None

    def clear(self) -> None:
        """It has served: nothing is held against it any more."""
        self.ejections, self.breaks = 0, 0
        self.answers_wrongly = self.cooling = False
        self.errors.clear()
        self.odd_answers.clear()


def count_prompt(prompts: set[object], prompt: Prompt | None) -> bool:
    """Add *prompt*, an unknown one as a new one; whether it is new.

    Beyond the bound nothing is remembered and each counts: the endpoint is found out by then.
    """
    if prompt in prompts:
        return False
    if len(prompts) < MAX_COUNTED:
        prompts.add(object() if prompt is None else prompt)
    return True
