"""What follows from an engine's events for the index of its cache, and what was counted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lodestar_extproc.request import InferenceRequest


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


class StillThere(NamedTuple):
    """The first *n_blocks* of the prompt *hashes* are there after all."""

    hashes: Sequence[int]
    n_blocks: int


class Length(NamedTuple):
    """The prompt of *request*, of which no usage was told, has about so many tokens."""

    request: InferenceRequest
    tokens: float


Correction = Cut | Unheld | StillThere | Length


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
