"""CacheBelief: how much of what each endpoint's cache was expected to hold was really found there.

An index of what was sent where cannot see what an engine evicts, shares with longer answers, salts
or never stores. The engine counts what it looked up and what it found, and some answers tell it in
their usage: both are compared with what had been expected of the same prompts.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

MIN_EXPECTED_TOKENS = 4096.0
"""Before the counters are looked at again: some prompts, so that where a scrape falls between an
engine's count and ours means little. Set by judgement."""
CAUGHT_UP_RATIO = 0.8
"""Of the tokens that we know of, the engine must have looked up so many: some count a prompt only
when its answer has ended, a minute after its first token. Set by judgement."""
MEMORY_TOKENS = 200_000.0
"""How far back it looks, in expected tokens: some hundred prompts of agents. Set by judgement."""
PRIOR_TOKENS = 4096.0
"""So many tokens are taken to have been found before any evidence. Set by judgement."""
DOUBTED_BELOW = 0.5
"""An index is right to within a factor of two where an engine's cache works: of prompts that begin
alike and come together the first is still being computed, and blocks go to longer answers. From
here down something else is wrong, and belief goes from whole to none."""


@dataclass(slots=True)
class _Evidence:
    """Of one endpoint.

    Attributes:
        expected_tokens, found_tokens: lately, and how many of them were found.
        queries, hits: the engine's totals when the window began; None before any scrape.
        window_expected, window_prompts: tokens since then, as we know of them.
    """

    expected_tokens: float = 0.0
    found_tokens: float = 0.0
    queries: float | None = None
    hits: float = 0.0
    window_expected: float = 0.0
    window_prompts: float = 0.0

    @property
    def ratio(self) -> float:
        proved = (self.found_tokens + PRIOR_TOKENS) / (self.expected_tokens + PRIOR_TOKENS)
        return min(1.0, proved / DOUBTED_BELOW)

    def learn(self, expected_tokens: float, found_ratio: float) -> None:
        kept = max(0.0, 1.0 - expected_tokens / MEMORY_TOKENS)
        self.expected_tokens = kept * self.expected_tokens + expected_tokens
        self.found_tokens = kept * self.found_tokens + expected_tokens * min(1.0, found_ratio)

    def begin(self, queries: float, hits: float) -> None:
        self.queries, self.hits = queries, hits
        self.window_expected = self.window_prompts = 0.0


class CacheBelief:
    """The ratio of every endpoint, 0 to 1; whole until an engine proves otherwise."""

    def __init__(self) -> None:
        self._evidence: dict[str, _Evidence] = {}
        self._ratios: dict[str, float] = {}

    @property
    def is_whole(self) -> bool:
        """Whether everything is believed of every endpoint: the common case, kept cheap."""
        return not self._ratios

    def ratio(self, address: str) -> float:
        """The share of what is expected at *address* that is to be believed."""
        return self._ratios.get(address, 1.0)

    def keep(self, addresses: Container[str]) -> None:
        """Forget all but *addresses*."""
        self._evidence = {a: e for a, e in self._evidence.items() if a in addresses}
        self._ratios = {a: r for a, r in self._ratios.items() if a in addresses}

    def expected(self, address: str, tokens: float, prompt_tokens: float) -> None:
        """A prompt was computed, of which *tokens* were expected in the cache."""
        evidence = self._of(address)
        evidence.window_expected += tokens
        evidence.window_prompts += prompt_tokens

    def counted(self, address: str, queries: float, hits: float) -> None:
        """The engine's totals of tokens looked up and found, by a scrape."""
        evidence = self._of(address)
        if evidence.queries is None or queries < evidence.queries or hits < evidence.hits:
            evidence.begin(queries, hits)  # the first word of it, or it has restarted
            return
        looked_up, found = queries - evidence.queries, hits - evidence.hits
        expected, prompts = evidence.window_expected, evidence.window_prompts
        if expected < MIN_EXPECTED_TOKENS or looked_up < CAUGHT_UP_RATIO * prompts:
            return
        # It may have more clients than us, whose hits cannot be told from ours: in our favour.
        self._learn(address, expected, found / expected * max(1.0, prompts / looked_up))
        evidence.begin(queries, hits)

    def found(self, address: str, expected_tokens: float, found_tokens: float) -> None:
        """An answer told how much of its prompt was found, of which so much was expected."""
        if expected_tokens > 0:
            self._learn(address, expected_tokens, found_tokens / expected_tokens)

    def _learn(self, address: str, expected_tokens: float, found_ratio: float) -> None:
        evidence = self._of(address)
        evidence.learn(expected_tokens, found_ratio)
        self._ratios.pop(address, None)
        if evidence.ratio < 1.0:
            self._ratios[address] = evidence.ratio

    def _of(self, address: str) -> _Evidence:
        return self._evidence.setdefault(address, _Evidence())
