"""FirstToken, AnswerReport, Completion: what the edge learned of an answer, from any source."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

FIRST_ERROR_STATUS = 400
"""RFC 9110, section 15.5: from here on an answer is an error, and its status says whose."""


class Outcome(StrEnum):
    """How a request ended.

    The edge tells the first four; what an answer's status and content make of `SERVED` is worked
    out once, in `routing/ended_request.py`.
    """

    SERVED = "served"
    """A whole answer came from an engine, whatever its status below 500."""
    CLIENT_GONE = "client_gone"
    """The client left first: its TTFT is a lower bound."""
    FAILED = "failed"
    """Connect failure, reset, timeout, 5xx, an error event, or an end that is no model's own."""
    EXPIRED = "expired"
    """Nothing was heard of it for longer than the pool's request timeout."""
    REFUSED = "refused"
    """A whole answer came, and its status is a refusal."""
    EMPTY = "empty"
    """A whole answer came under a good status, and there was no answer in it."""
    UNREADABLE = "unreadable"
    """A whole answer came in a form that is not read here."""


class AnswerForm(StrEnum):
    """What an answer was seen to be."""

    STREAM = "stream"
    """Events, of which one held generated content."""
    ONE_PIECE = "one_piece"
    """A JSON document: its first token came with its last."""
    PROMISE = "promise"
    """A document that tells where the answer will be found: it is computed in the background."""
    UNFINISHED = "unfinished"
    """Events with content, and then an end without any sign of one."""
    NOTHING = "nothing"
    """No byte, or events without content."""
    FOREIGN = "foreign"
    """A page, a text or a document that answers no inference request."""
    UNREADABLE = "unreadable"
    """Bytes that are not read here: compressed otherwise than by gzip or deflate, or binary."""


class FirstToken(NamedTuple):
    """The first token of an answer passed the edge.

    Attributes:
        at_s: monotonic seconds.
        served: address of the endpoint that answered; None where the edge was not told.
        body_began_before: a keep-alive comment, or a role, came first: when the body began, as the
            access log has it, is no TTFT.
        form: but for a stream it ends prefill, and its time is no TTFT.
        watched: every further part of the answer will be told.
    """

    decision_id: str
    at_s: float
    served: str | None = None
    body_began_before: bool = False
    form: AnswerForm = AnswerForm.STREAM
    watched: bool = False


class KeptState(StrEnum):
    """How far what an engine keeps has come."""

    RUNNING = "running"
    """It is still being computed, whoever waits for it."""
    ENDED = "ended"
    GONE = "gone"
    """It is kept no longer, or never was."""


class KeptAnswer(NamedTuple):
    """An answer said what its engine keeps: itself, a conversation, or what was asked for.

    Attributes:
        decision_id: of the decision that led to it, or of the look-up (see `look_ups.py`).
        name: as the engine has it; empty where the look-up says which.
        served: address of the endpoint that answered; None where the edge was not told.
        output_tokens: of the reply; None where it did not say.
    """

    decision_id: str
    at_s: float
    name: str
    state: KeptState
    served: str | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerReport:
    """What the engine itself said in an answer; how it ended, Envoy's access log tells.

    Attributes:
        failed: it reported an error, under a status that was sent long before.
        prompt_tokens, cached_tokens, output_tokens: its usage; None where it did not say.
        form: what the whole of it was; None where it was not watched to its end.
    """

    decision_id: str
    failed: bool = False
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    form: AnswerForm | None = None


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
        is_empty: Envoy saw no byte of a body.
        answer_bytes: of its body, as Envoy counted them; None where unknown.
        retry_after_s: what a refusal asks to wait; None where it does not say.
        form: what the whole answer was, where it was watched.
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
    is_empty: bool = False
    answer_bytes: int | None = None
    retry_after_s: float | None = None
    form: AnswerForm | None = None

    @property
    def cached_ratio(self) -> float | None:
        """The share of the prompt that the engine found in its cache; None where it did not say."""
        if self.cached_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_tokens / self.prompt_tokens

    def with_report(self, report: AnswerReport) -> Completion:
        """The same end, with what the engine said in its answer."""
        # A client that left after an error left because of it. Under a status that says what was
        # wrong, the body says it once more.
        told = self.response_code is not None and self.response_code >= FIRST_ERROR_STATUS
        broken = report.failed and not told and self.outcome is not Outcome.FAILED
        return self._replace(
            outcome=Outcome.FAILED if broken else self.outcome,
            flags=() if broken else self.flags,
            output_tokens=report.output_tokens,
            cached_tokens=report.cached_tokens,
            prompt_tokens=report.prompt_tokens,
            form=report.form,
        )
