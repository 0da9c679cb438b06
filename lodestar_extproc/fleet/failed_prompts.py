"""FailedPrompts: which endpoints failed which prompts lately, so that none is tried there twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

MAX_PROMPTS = 512
"""A bound on memory: some 100 KB."""
MEMORY_S = 30.0
"""As long as the longest ejection: a client that retries does so within seconds."""

Prompt = int
"""Stands for a prompt: its last block's hash, with its length."""


class FailedPrompts:
    """Prompts by the last failure, oldest first; bounded."""

    def __init__(self) -> None:
        self._failed: OrderedDict[Prompt, dict[str, float]] = OrderedDict()

    def add(self, prompt: Prompt | None, address: str, at_s: float) -> None:
        """*address* failed it; an unknown one is not remembered."""
        if prompt is None:
            return
        self._failed.setdefault(prompt, {})[address] = at_s
        self._failed.move_to_end(prompt)
        if len(self._failed) > MAX_PROMPTS:
            self._failed.popitem(last=False)

    def of(self, prompt: Prompt, at_s: float) -> Collection[str]:
        """The endpoints that failed it lately."""
        failed = self._failed.get(prompt)
        if not failed:
            return ()
        return [address for address, then_s in failed.items() if at_s - then_s < MEMORY_S]

    def served(self, prompt: Prompt) -> None:
        """It was served: it is to blame for nothing."""
        self._failed.pop(prompt, None)

    def forget(self, address: str) -> None:
        """The endpoint left, or serves again."""
        for failed in self._failed.values():
            failed.pop(address, None)

    def __len__(self) -> int:
        return len(self._failed)
