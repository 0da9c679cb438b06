"""AnswerRate: how many of an endpoint's recent answers were none, against those of the others."""

from __future__ import annotations

import math

MEMORY_S = 30.0
"""Time constant of what is remembered: hundreds of answers of a busy endpoint. Not tuned."""
PRIOR_ANSWERS, PRIOR_ODD_ANSWERS = 2.0, 0.1
"""Taken as seen of a fleet of which nothing is known: one answer in twenty is odd."""


class AnswerRate:
    """Answers, and those among them that were odd, both fading with time constant `MEMORY_S`."""

    __slots__ = ("_answers", "_at_s", "_odd")

    def __init__(self) -> None:
        self._answers = self._odd = 0.0
        self._at_s = 0.0

    def add(self, at_s: float, *, odd: bool) -> None:
        """One more answer."""
        self._fade(at_s)
        self._answers += 1.0
        self._odd += odd

    def at(self, at_s: float) -> tuple[float, float]:
        """Answers and odd ones, as they weigh now."""
        self._fade(at_s)
        return self._answers, self._odd

    def _fade(self, at_s: float) -> None:
        if at_s > self._at_s:
            kept = math.exp((self._at_s - at_s) / MEMORY_S)
            self._answers *= kept
            self._odd *= kept
            self._at_s = at_s


def odd_ratio(rates: list[tuple[float, float]]) -> float:
    """The share of odd answers in *rates*; small where nothing is known."""
    answers = sum(answers for answers, _ in rates)
    odd = sum(odd for _, odd in rates)
    return (odd + PRIOR_ODD_ANSWERS) / (answers + PRIOR_ANSWERS)
