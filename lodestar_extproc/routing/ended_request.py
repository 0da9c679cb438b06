"""EndedRequest: what became of one request, worked out once for all who ask.

It joins a decision with the first token and the end that the edge reported, and says what they
mean; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from lodestar_extproc.completion import AnswerForm, Completion, FirstToken, Outcome
from lodestar_extproc.decision import Decision
from lodestar_extproc.routing.ending import OUTCOMES, Ending, ending_of
from lodestar_extproc.routing.label import TAUGHT_AT_END, Label

MAX_PREFILL_TOKENS_PER_S = 1e6
"""Ten times what eight of the fastest accelerators reach together: what is faster computed nothing.

A B200 computes some 60,000 tokens of an 8B model a second.
"""
MIN_TIMED_TOKENS = 1000.0
"""Of a shorter prompt the time is the network's: no speed follows from it."""


_FINAL = (Label.FIRST_TOKEN, Label.IMPLAUSIBLE)
_SAID = (*_FINAL, Label.UNSTREAMED, Label.UNREADABLE)
_TIMED_BY_ENVOY = (Ending.SERVED, Ending.UNFINISHED, Ending.UNUSED)
_COMPUTED = (AnswerForm.STREAM, AnswerForm.ONE_PIECE)
_NOTHING_TO_LEARN: Mapping[Ending, Label] = MappingProxyType(
    {
        Ending.REFUSED: Label.REFUSED,
        Ending.TURNED_AWAY: Label.REFUSED,
        Ending.EMPTY: Label.EMPTY,
        Ending.UNREADABLE: Label.UNREADABLE,
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
        form: what the answer was until then.
    """

    at_s: float
    ttft_s: float
    served: str | None
    body_began_before: bool
    label: Label
    failed: tuple[str, ...] = ()
    form: AnswerForm = AnswerForm.STREAM

    @property
    def is_token(self) -> bool:
        """Whether an engine computed it; else prefill is over, and that is all that is known."""
        return self.form in _COMPUTED and self.label is not Label.IMPLAUSIBLE

    @property
    def is_timed(self) -> bool:
        """Whether its time is a TTFT."""
        return self.form is AnswerForm.STREAM and self.label is not Label.IMPLAUSIBLE


class EndedRequest(NamedTuple):
    """One decision and all that followed.

    Attributes:
        first_token: None where none was seen.
        completion: as the edge told it, with what the engine itself said; its outcome is refined
            by what the answer was.
        used: whether Envoy waited for the decision.
        served: who answered last; None where nobody knows.
        ttft_s: from the decision to the first token that was seen, else as Envoy measured it for
            a streamed answer; None where neither is known.
        label: what of it was learned, or why nothing was.
        failed: endpoints that were tried in vain and that the first token had not told of.
        is_ignored: Envoy waited for the decision, and sent its first attempt elsewhere.
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
    is_ignored: bool = False

    @property
    def is_served(self) -> bool:
        """Whether a whole answer with tokens came from where the decision led."""
        return self.ending is Ending.SERVED and self.label is not Label.IMPLAUSIBLE

    @property
    def prompt_computed(self) -> bool:
        """Whether the prompt has come into a cache."""
        first_token = self.first_token
        return self.used and (self.is_served or (first_token is not None and first_token.is_token))

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
        return completion.duration_s - completion.ttft_s - self.decision.held_s

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
        _label_at_first_token(decision, event, served, elsewhere=elsewhere),
        # The access log would tell it too, when the answer ends: minutes later.
        tried if len(tried) < retry_candidates else (),
        event.form,
    )


def ended_request(
    decision: Decision,
    first_token: ObservedFirstToken | None,
    completion: Completion,
    *,
    shadow: bool,
    sees_first_tokens: bool,
    in_doubt: bool = False,
) -> EndedRequest:
    """What the end of *decision*'s request means.

    Args:
        shadow: as above.
        in_doubt: Envoy may have chosen by itself, so that nobody knows whom it tried.
        sees_first_tokens: whether first tokens are seen here; else the access log times them.
    """
    keeping = decision.candidates.request.keeping
    ending = ending_of(
        completion,
        None if first_token is None else first_token.form,
        names_kept=keeping is not None and keeping.continues is not None,
    )
    if completion.outcome is Outcome.SERVED and ending in OUTCOMES:
        completion = completion._replace(outcome=OUTCOMES[ending])
    used = ending is not Ending.UNUSED
    served, ttft_s = completion.served, completion.ttft_s
    if not decision.candidates.request.streaming or ending not in _TIMED_BY_ENVOY:
        ttft_s = None
    elsewhere = completion.served not in (None, decision.address)
    is_ignored = used and not shadow and elsewhere and completion.attempts == 1
    n_failed = (completion.attempts or 1) - 1 if used and not (shadow or in_doubt) else 0
    if first_token is not None:
        served = served or first_token.served
        ttft_s = first_token.ttft_s if first_token.is_timed else None
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
        is_ignored,
    )


def _label_at_first_token(
    decision: Decision, event: FirstToken, served: str, *, elsewhere: bool
) -> Label:
    if not decision.candidates.request.streaming or event.form is AnswerForm.ONE_PIECE:
        return Label.UNSTREAMED
    if event.form is not AnswerForm.STREAM:
        return Label.UNREADABLE
    if _is_implausible(decision, served, event.at_s - decision.at_s):
        return Label.IMPLAUSIBLE
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
    if ending in _NOTHING_TO_LEARN and not (first_token and first_token.label in _FINAL):
        return _NOTHING_TO_LEARN[ending]
    if first_token is not None and first_token.label in _SAID:
        return first_token.label
    if not decision.candidates.request.streaming:
        return Label.UNSTREAMED
    if ending is Ending.CLIENT_GONE:
        label = Label.CENSORED if first_token is None else Label.CLIENT_GONE
    else:
        label = _label_by_envoy(first_token, completion.ttft_s, sees_first_tokens=sees_first_tokens)
    if label in TAUGHT_AT_END and decision.index_of(served or decision.address) is None:
        return Label.NO_CANDIDATE
    if label is Label.END and _is_implausible(decision, served, completion.ttft_s):
        return Label.IMPLAUSIBLE
    return label


def _is_implausible(decision: Decision, served: str | None, ttft_s: float | None) -> bool:
    """Whether no engine could have computed the prompt in that time."""
    index = decision.index_of(served or decision.address)
    if index is None or ttft_s is None:
        return False
    tokens = decision.candidates.uncached_on(index)
    return tokens >= MIN_TIMED_TOKENS and tokens > MAX_PREFILL_TOKENS_PER_S * max(ttft_s, 0.0)


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
