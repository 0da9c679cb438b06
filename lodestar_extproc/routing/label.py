"""Label: what a request's time to first token teaches, or why it teaches nothing."""

from __future__ import annotations

from enum import StrEnum, auto


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
    EMPTY = auto()
    """There was no answer in the answer."""
    UNREADABLE = auto()
    """When its first token came cannot be read from it."""
    IMPLAUSIBLE = auto()
    """It came sooner than any engine could have computed the prompt."""
    CLIENT_GONE = auto()
    """The client left after a first token that could not be learned."""
    FAILED = auto()
    """No whole answer came."""
    EXPIRED = auto()
    """Nothing was heard of it."""
    UNUSED = auto()
    """Envoy had gone on without the decision."""


TAUGHT_AT_END = (Label.END, Label.CENSORED)
"""What is learned when the answer has ended, not before."""
