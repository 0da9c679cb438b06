"""HealthRecord: what is known for and against one endpoint. `Health` owns and judges it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lodestar_extproc.fleet.answer_rate import AnswerRate
from lodestar_extproc.fleet.failed_prompts import Prompt

MAX_COUNTED = 6
"""Prompts that are told apart: twice as many as it takes to be taken out."""


@dataclass(slots=True)
class HealthRecord:
    """One endpoint's.

    Attributes:
        out_until_s: nothing is sent to it before; monotonic seconds.
        cooling: it is out for what it answered oddly.
        ejections: how often it was taken out in a row; above 0 it is on probation.
        answers_wrongly: it was taken out for its answers: a first token proves nothing.
        breaks: ejections for answers that broke off in their middle, since its last success.
        errors, odd_answers: the prompts it answered so since its last success.
        rate: odd answers among all.
    """

    probe_failures: int = 0
    probe_successes: int = 0
    probe_down: bool = False
    frozen: bool = False
    out_until_s: float = float("-inf")
    cooling: bool = False
    ejections: int = 0
    answers_wrongly: bool = False
    breaks: int = 0
    errors: set[object] = field(default_factory=set)
    odd_answers: set[object] = field(default_factory=set)
    rate: AnswerRate = field(default_factory=AnswerRate)

    @property
    def is_suspect(self) -> bool:
        """Whether anything speaks against it, if not enough to take it out."""
        return bool(self.errors or self.odd_answers or self.ejections)

    @property
    def bars(self) -> bool:
        """Whether anything keeps requests from it, or did and has not been refuted."""
        return bool(self.probe_down or self.frozen or self.ejections)

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
