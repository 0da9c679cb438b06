"""EndedRequest: what became of one request, worked out once for all who ask.

It joins a decision with the first token and the end that the edge reported, and says what they
mean; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, auto
from types import MappingProxyType
from typing import NamedTuple

from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.decision import Decision

FIRST_ERROR_STATUS = 400
"""RFC 9110, section 15.5: from here on an answer is an error."""


class Ending(StrEnum):
    """How a request ended, and of whom that speaks."""

    SERVED = auto()
    """A whole answer came: it speaks for the endpoint."""
    REFUSED = auto()
    """A whole answer came, and its status blames the request: no token was computed."""
    ERRORED = auto()
    """The engine answered an error: it speaks against the endpoint, or against this prompt."""
    BROKEN_OFF = auto()
    """No connection, a reset or a timeout: it speaks against the endpoint."""
    CLIENT_GONE = auto()
    """The client left first: it speaks of nobody."""
    EXPIRED = auto()
    """Nothing was heard of it: it speaks of nobody."""
    UNUSED = auto()
    """Envoy had gone on without the decision: it speaks of nobody that was chosen."""


class Label(StrEnum):
    """What a request's time to first token teaches, or why it teaches nothing.

    It is said of every request, also where the pool's policy has no use for it.
    """

    FIRST_TOKEN = auto()
    """It was learned when the first token passed."""
    END = auto()
    """It was learned at the end: the last attempt's time, as Envoy measured it."""
    CENSORED = auto()
    """The client left before a first token: a lower bound was learned at the end."""
    UNSTREAMED = auto()
    """An answer in one piece has no first token to time."""
    NO_CANDIDATE = auto()
    """Who served was no candidate: there is no row of features for it."""
    SERVED_ELSEWHERE = auto()
    """A retry served it: the time of failed attempts is in it, and Envoy told no other."""
    BODY_BEGAN_BEFORE = auto()
    """A keep-alive or a role began the body, and Envoy timed that."""
    UNSEEN = auto()
    """The observing filter should have seen a first token and did not."""
    UNTIMED = auto()
    """Envoy told no time."""
    REFUSED = auto()
    """A refusal comes at once: no token was computed."""
    CLIENT_GONE = auto()
    """The client left after a first token that could not be learned."""
    FAILED = auto()
    """No whole answer came."""
    EXPIRED = auto()
    """Nothing was heard of it."""
    UNUSED = auto()
    """Envoy had gone on without the decision."""


# Tuples made once: Python 3.11 takes 0.1 µs to find a member of an enum.
_WHOLE = (Ending.SERVED, Ending.REFUSED)
TAUGHT_AT_END = (Label.END, Label.CENSORED)
"""What is learned when the answer has ended, not before."""
_NOTHING_TO_LEARN: Mapping[Ending, Label] = MappingProxyType(
    {
        Ending.REFUSED: Label.REFUSED,
        Ending.ERRORED: Label.FAILED,
        Ending.BROKEN_OFF: Label.FAILED,
        Ending.EXPIRED: Label.EXPIRED,
        Ending.UNUSED: Label.UNUSED,
    }
)


class ObservedFirstToken(NamedTuple):
    """A first token, and what it means for its decision.

    Attributes:
        at_s: monotonic seconds.
        ttft_s: from the decision; failed attempts are part of it.
        served: who answered; None where the edge was not told.
        body_began_before: something that was no token came before it.
        label: whether it is learned now; what an end may still teach is not said.
        failed: endpoints that a retry went past to get it.
    """

    at_s: float
    ttft_s: float
    served: str | None
    body_began_before: bool
    label: Label
    failed: tuple[str, ...] = ()


class EndedRequest(NamedTuple):
    """One decision and all that followed.

    Attributes:
        first_token: None where none was seen.
        completion: as the edge told it, with what the engine itself said.
        used: whether Envoy waited for the decision.
        served: who answered last; None where nobody knows.
        ttft_s: from the decision to the first token that was seen, else as Envoy measured it for
            a streamed answer; None where neither is known.
        label: what of it was learned, or why nothing was.
        failed: endpoints that were tried in vain and that the first token had not told of.
    """

    decision: Decision
    first_token: ObservedFirstToken | None
    completion: Completion
    used: bool
    ending: Ending
    served: str | None
    ttft_s: float | None
    label: Label
    failed: tuple[str, ...] = ()

    @property
    def served_whole(self) -> bool:
        """Whether a whole answer came, a refusal included, from where the decision led."""
        return self.ending in _WHOLE

    @property
    def prompt_computed(self) -> bool:
        """Whether the prompt has come into a cache."""
        return self.used and (self.first_token is not None or self.served_whole)

    @property
    def waited_s(self) -> float:
        """How long it had gone on when it ended."""
        return self.completion.duration_s or self.completion.at_s - self.decision.at_s

    @property
    def generation_s(self) -> float | None:
        """From the first token to the end; None where either time is unknown."""
        completion = self.completion
        if self.first_token is not None:
            return completion.at_s - self.first_token.at_s
        if completion.duration_s is None or completion.ttft_s is None:
            return None
        return completion.duration_s - completion.ttft_s

    def without_prompt(self) -> EndedRequest:
        """The same, less the prompt's hashes."""
        return self._replace(decision=self.decision.without_prompt())


def observed_first_token(
    decision: Decision, event: FirstToken, *, shadow: bool, retry_candidates: int
) -> ObservedFirstToken:
    """What *event*, the first one of *decision*, means.

    Args:
        shadow: nobody heeds the pool's decisions, so that who served is no retry's choice.
        retry_candidates: endpoints that a retry takes at most.
    """
    served = event.served or decision.address
    elsewhere = served != decision.address and not shadow
    tried = decision.tried_before(served) if elsewhere else ()
    return ObservedFirstToken(
        event.at_s,
        event.at_s - decision.at_s,
        event.served,
        event.body_began_before,
        _label_at_first_token(decision, served, elsewhere=elsewhere),
        # The access log would tell it too, when the answer ends: minutes later.
        tried if len(tried) < retry_candidates else (),
    )


def ended_request(
    decision: Decision,
    first_token: ObservedFirstToken | None,
    completion: Completion,
    *,
    shadow: bool,
    sees_first_tokens: bool,
) -> EndedRequest:
    """What the end of *decision*'s request means.

    Args:
        shadow: as above.
        sees_first_tokens: whether first tokens are seen here; else the access log times them.
    """
    ending = ending_of(completion)
    used = ending is not Ending.UNUSED
    served, ttft_s = completion.served, completion.ttft_s
    if not decision.candidates.request.streaming:
        ttft_s = None
    n_failed = (completion.attempts or 1) - 1 if used and not shadow else 0
    if first_token is not None:
        served, ttft_s = served or first_token.served, first_token.ttft_s
        n_failed = 0 if first_token.failed else n_failed
    tried = decision.addresses[:n_failed] if n_failed > 0 else ()
    return EndedRequest(
        decision,
        first_token,
        completion,
        used,
        ending,
        served,
        ttft_s,
        _label_at_end(
            decision, first_token, completion, ending, served, sees_first_tokens=sees_first_tokens
        ),
        tuple([address for address in tried if address != served]) if tried else (),
    )


def ending_of(completion: Completion) -> Ending:
    """How it ended: the only place that tells one ending from another."""
    # Without our id in it, Envoy had gone on without us.
    if not completion.decision_id:
        return Ending.UNUSED
    code = completion.response_code
    match completion.outcome:
        case Outcome.SERVED:
            refused = code is not None and code >= FIRST_ERROR_STATUS
            return Ending.REFUSED if refused else Ending.SERVED
        case Outcome.FAILED:
            answered = code is not None and not completion.flags
            return Ending.ERRORED if answered else Ending.BROKEN_OFF
        case Outcome.CLIENT_GONE:
            return Ending.CLIENT_GONE
        case Outcome.EXPIRED:
            return Ending.EXPIRED


def _label_at_first_token(decision: Decision, served: str, *, elsewhere: bool) -> Label:
    if not decision.candidates.request.streaming:
        return Label.UNSTREAMED
    if elsewhere:
        # The time of the failed attempts is in this one; the access log has the last one's own.
        return Label.SERVED_ELSEWHERE
    return Label.NO_CANDIDATE if decision.index_of(served) is None else Label.FIRST_TOKEN


def _label_at_end(
    decision: Decision,
    first_token: ObservedFirstToken | None,
    completion: Completion,
    ending: Ending,
    served: str | None,
    *,
    sees_first_tokens: bool,
) -> Label:
    if first_token is not None and first_token.label is Label.FIRST_TOKEN:
        return first_token.label
    if ending in _NOTHING_TO_LEARN:
        return _NOTHING_TO_LEARN[ending]
    if not decision.candidates.request.streaming:
        return Label.UNSTREAMED
    if ending is Ending.CLIENT_GONE:
        label = Label.CENSORED if first_token is None else Label.CLIENT_GONE
    else:
        label = _label_by_envoy(first_token, completion.ttft_s, sees_first_tokens=sees_first_tokens)
    if label in TAUGHT_AT_END and decision.index_of(served or decision.address) is None:
        return Label.NO_CANDIDATE
    return label


def _label_by_envoy(
    first_token: ObservedFirstToken | None, ttft_s: float | None, *, sees_first_tokens: bool
) -> Label:
    """What the time that Envoy told of a whole answer is worth."""
    if sees_first_tokens:
        if first_token is None:
            return Label.UNSEEN
        # A keep-alive begins a body before a token does, and then Envoy has timed that.
        if first_token.body_began_before:
            return Label.BODY_BEGAN_BEFORE
    if ttft_s is not None:
        return Label.END
    by_retry = first_token is not None and first_token.label is Label.SERVED_ELSEWHERE
    return Label.SERVED_ELSEWHERE if by_retry else Label.UNTIMED
