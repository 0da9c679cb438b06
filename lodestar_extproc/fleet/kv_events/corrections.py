"""What follows from an engine's events for the index of its cache, and what was counted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Cut(NamedTuple):
    """Of the prompt *hashes* no more than *n_kept* blocks are there.

    Nor is anything that goes on from its first *n_gone*.
    """

    hashes: Sequence[int]
    n_kept: int
    n_gone: int


class Unheld(NamedTuple):
    """The prompt *hashes* is not there, but for what it shares with others."""

    hashes: Sequence[int]


Correction = Cut | Unheld


@dataclass(slots=True)
class FollowingCounts:
    """What was made of one engine's events.

    Attributes:
        joined, unjoined: requests whose blocks were found among the engine's, or not.
        error_tokens: by how much what was expected in the cache differed from what was found.
        compared_tokens: of all prompts that were compared.
    """

    joined: int = 0
    unjoined: int = 0
    error_tokens: float = 0.0
    compared_tokens: float = 0.0
