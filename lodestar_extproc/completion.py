"""FirstToken, AnswerReport, Completion: what the edge learned of an answer, from any source."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """How a request ended."""

    SERVED = "served"
    """A whole answer came from an engine, whatever its status below 500."""
    CLIENT_GONE = "client_gone"
    """The client left first: its TTFT is a lower bound."""
    FAILED = "failed"
    """Connect failure, reset, timeout, 5xx, or an error event in the stream."""
    EXPIRED = "expired"
    """Nothing was heard of it for longer than the pool's request timeout."""


class FirstToken(NamedTuple):
    """The first token of an answer passed the edge.

    Attributes:
        at_s: monotonic seconds.
        served: address of the endpoint that answered; None where the edge was not told.
        body_began_before: a keep-alive comment, or a role, came first: when the body began, as the
            access log has it, is no TTFT.
    """

    decision_id: str
    at_s: float
    served: str | None = None
    body_began_before: bool = False


@dataclass(frozen=True, slots=True)
class AnswerReport:
    """What the engine itself said in an answer; how it ended, Envoy's access log tells.

    Attributes:
        failed: it reported an error, under a status that was sent long before.
        prompt_tokens, cached_tokens, output_tokens: its usage; None where it did not say.
    """

    decision_id: str
    failed: bool = False
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None


class Completion(NamedTuple):
    """The end of an answer.

    Attributes:
        decision_id: empty where Envoy served without our decision (it came too late).
        stream_id: our id of the stream on which the decision was to be made; it joins such an
            answer to the decision that nobody used.
        served: address of the endpoint that answered last; None where unknown.
        attempts: upstream attempts, 1 without a retry; None where unknown.
        ttft_s: of the last attempt, from the upstream request's first byte to the body's first,
            as Envoy measured it; None where it never came or Envoy cannot tell.
        duration_s: from the upstream request's first byte to the end; None where unknown.
        flags: Envoy's response flags ("UF", "UC", "DC" ...).
        output_tokens, cached_tokens, prompt_tokens: from the usage, where the answer was watched.
    """

    at_s: float
    outcome: Outcome
    decision_id: str = ""
    stream_id: str = ""
    served: str | None = None
    attempts: int | None = None
    ttft_s: float | None = None
    duration_s: float | None = None
    response_code: int | None = None
    flags: tuple[str, ...] = ()
    output_tokens: int | None = None
    cached_tokens: int | None = None
    prompt_tokens: int | None = None

    @property
    def cached_ratio(self) -> float | None:
        """The share of the prompt that the engine found in its cache; None where it did not say."""
        if self.cached_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_tokens / self.prompt_tokens

    def with_report(self, report: AnswerReport) -> Completion:
        """The same end, with what the engine said in its answer."""
        # A client that left after an error left because of it.
        broken = report.failed and self.outcome is not Outcome.FAILED
        return self._replace(
            outcome=Outcome.FAILED if broken else self.outcome,
            flags=() if broken else self.flags,
            output_tokens=report.output_tokens,
            cached_tokens=report.cached_tokens,
            prompt_tokens=report.prompt_tokens,
        )
