"""Block ids: numbers that stand for 16 prompt tokens each, equal where prompts share them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.simulator.arrival import BlockIds
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS


def mixed(values: NDArray[np.uint64]) -> BlockIds:
    """Spread *values* over 64 bits, one to one (splitmix64's finaliser; Steele, Lea, Flood 2014).

    >>> len(set(mixed(np.arange(1000, dtype=np.uint64)).tolist()))
    1000
    """
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    spread: BlockIds = z ^ (z >> np.uint64(31))
    return spread


def of_hash_ids(
    hash_ids: NDArray[np.uint64], tokens_per_hash: int, prompt_tokens: int, salt: int = 0
) -> BlockIds:
    """Blocks of a prompt whose content is told by coarser hash ids.

    A block is known by its place and by the hash id that covers its last token. Where the hash ids
    end before the prompt does, the last one goes on.
    """
    places = np.arange(prompt_tokens // BLOCK_TOKENS, dtype=np.uint64)
    last_tokens = (places + np.uint64(1)) * np.uint64(BLOCK_TOKENS) - np.uint64(1)
    covering = np.minimum(last_tokens // np.uint64(tokens_per_hash), np.uint64(len(hash_ids) - 1))
    return mixed(mixed(hash_ids[covering] + np.uint64(salt)) + places)


class FreshBlocks:
    """Ids that nobody else has, for content that is not shared."""

    def __init__(self, seed: int) -> None:
        self._next = np.uint64((seed + 1) << 40)

    def take(self, n_tokens: int) -> BlockIds:
        """Ids of the full blocks of *n_tokens*."""
        n = max(0, n_tokens) // BLOCK_TOKENS
        first, self._next = self._next, self._next + np.uint64(n)
        return mixed(first + np.arange(n, dtype=np.uint64))
