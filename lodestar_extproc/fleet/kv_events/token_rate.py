"""TokenRate: tokens of a block of our bytes, as the prompts whose blocks were found have shown."""

from __future__ import annotations

FORGETTING = 0.95
"""A prompt: a memory of some twenty. Of eight recorded runs better than 0.99."""
MIN_PROMPTS = 5
"""Before it is gone by: the setting may be off by half. From 3 to 10 recorded runs are alike."""


class TokenRate:
    """Of one engine; forgets."""

    def __init__(self) -> None:
        self._n, self._tokens, self._blocks = 0, 0.0, 0.0

    def learn(self, tokens: float, n_blocks: float) -> None:
        """A prompt of so many blocks of bytes was of so many tokens."""
        self._n += 1
        self._tokens = FORGETTING * self._tokens + tokens
        self._blocks = FORGETTING * self._blocks + n_blocks

    @property
    def per_block(self) -> float | None:
        """None while too few prompts have shown it."""
        return self._tokens / self._blocks if self._n >= MIN_PROMPTS and self._blocks else None
