"""Ending: how a request ended, and of whom that speaks."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, auto
from types import MappingProxyType

from lodestar_extproc.completion import FIRST_ERROR_STATUS, AnswerForm, Completion, Outcome

FIRST_REDIRECTION_STATUS = 300
"""RFC 9110, section 15.4: from here on an answer leads elsewhere."""
NO_CONTENT_STATUS = 204
"""RFC 9110, section 15.3.5."""
NOT_FOUND_STATUS = 404
"""RFC 9110, section 15.5.5."""
BUSY_STATUSES = (429, 503, 529)
"""They say that the endpoint takes no more, whoever asks; 529 is Anthropic's (overloaded)."""
TURNED_AWAY_STATUSES = frozenset((401, 403, NOT_FOUND_STATUS, 408, *BUSY_STATUSES))
"""They may speak of the endpoint: other keys, no such model there, no time, no room."""


class Ending(StrEnum):
    """How a request ended, and of whom that speaks."""

    SERVED = auto()
    """A whole answer came, with tokens as far as was seen: it speaks for the endpoint."""
    REFUSED = auto()
    """A whole answer came, and its status blames the request: it speaks of nobody."""
    TURNED_AWAY = auto()
    """A whole answer came, a refusal that others may not make: it may speak of the endpoint."""
    EMPTY = auto()
    """A whole answer came under a good status, and answered nothing: as above."""
    UNFINISHED = auto()
    """The answer stopped after its first token, without a word: as above."""
    UNREADABLE = auto()
    """A whole answer came that cannot be read here: it speaks of nobody, and for nobody."""
    ERRORED = auto()
    """The engine answered an error, or aborted: it speaks against the endpoint or the prompt."""
    BROKEN_OFF = auto()
    """No connection, a reset or a timeout: it speaks against the endpoint."""
    CLIENT_GONE = auto()
    """The client left first: it speaks of nobody."""
    EXPIRED = auto()
    """Nothing was heard of it: it speaks of nobody."""
    UNUSED = auto()
    """Envoy had gone on without the decision: it speaks of nobody that was chosen."""


ODD_ENDINGS = (Ending.TURNED_AWAY, Ending.EMPTY, Ending.UNFINISHED)
"""What speaks against an endpoint where others do better. Tuples: an enum's members hash slowly."""
OUTCOMES: Mapping[Ending, Outcome] = MappingProxyType(
    {
        Ending.REFUSED: Outcome.REFUSED,
        Ending.TURNED_AWAY: Outcome.REFUSED,
        Ending.EMPTY: Outcome.EMPTY,
        Ending.UNFINISHED: Outcome.FAILED,
        Ending.UNREADABLE: Outcome.UNREADABLE,
    }
)
"""What each makes of an answer that was whole to the edge."""

_BY_FORM: Mapping[AnswerForm, Ending] = MappingProxyType(
    {
        AnswerForm.NOTHING: Ending.EMPTY,
        AnswerForm.FOREIGN: Ending.EMPTY,
        AnswerForm.UNFINISHED: Ending.UNFINISHED,
        AnswerForm.UNREADABLE: Ending.UNREADABLE,
    }
)


def ending_of(
    completion: Completion, form: AnswerForm | None = None, *, names_kept: bool = False
) -> Ending:
    """How it ended: the only place that tells one ending from another.

    Args:
        form: what was seen of the answer until its first token; None where nothing was.
        names_kept: the request is about what one endpoint keeps, which may be gone.
    """
    # Without our id in it, Envoy had gone on without us.
    if not completion.decision_id:
        return Ending.UNUSED
    match completion.outcome:
        case Outcome.FAILED:
            return _failed(completion)
        case Outcome.CLIENT_GONE:
            return Ending.CLIENT_GONE
        case Outcome.EXPIRED:
            return Ending.EXPIRED
    if names_kept and completion.response_code == NOT_FOUND_STATUS:
        return Ending.REFUSED
    return _whole(completion, form if completion.form is None else completion.form)


def _failed(completion: Completion) -> Ending:
    code = completion.response_code
    if code is None or completion.flags:
        return Ending.BROKEN_OFF
    return Ending.TURNED_AWAY if code in BUSY_STATUSES else Ending.ERRORED


def _whole(completion: Completion, form: AnswerForm | None) -> Ending:
    code = completion.response_code or 0
    if code >= FIRST_REDIRECTION_STATUS:
        elsewhere = code < FIRST_ERROR_STATUS or code in TURNED_AWAY_STATUSES
        return Ending.TURNED_AWAY if elsewhere else Ending.REFUSED
    if code == NO_CONTENT_STATUS or (form is None and completion.is_empty):
        return Ending.EMPTY
    return Ending.SERVED if form is None else _BY_FORM.get(form, Ending.SERVED)
