"""OutgrownCaches: whether the sessions that run need more than all caches of a fleet hold.

Beyond that point every prompt that is computed anew displaces one that will be asked for in
seconds, and no order in which prompts are spread keeps all caches of use.
"""

from __future__ import annotations

import math

import numpy as np

from lodestar_extproc.endpoint import FloatArray

LOST_RATIO = 0.45
"""Of the prompts' tokens, those that a cache had and has lost: with agents 0.02 to 0.2 below
tipping over, and 0.45 to 0.65 beyond it, with little between."""
FULL_MEMORY_RATIO = 0.85
"""The mean of the fleet's use of KV memory from which requests wait for it. Sessions that come all
at once lose what they had, too, but leave memory free once they have begun."""
ROOMY_MEMORY_RATIO = 0.75
"""Below it they fit again."""
SUSTAINED_S = 30.0
"""For so long both have to hold; whatever begins at once has settled by then."""
LEAST_REQUESTS = 10.0
"""As many as the means have to be of."""
LEAST_PROMPTS_A_CACHE = 5.0
"""Where fewer fit, nothing is kept from one turn to the next by sparing a cache. This and the four
above by runs in virtual time: docs/decisions/0046-caches-outgrown-are-seen.md."""
VAIN_AFTER_S, VAIN_RATIO, VAIN_S = 60.0, 0.75, 600.0
"""A minute after it began the caches that are spared hit again. Where still so much is lost none
can be kept, as with salts, or an engine that caches nothing and does not say so: the fleet is left
alone for ten minutes then. Set by judgement."""


class OutgrownCaches:
    """Told of every request that this process sends; others' would say nothing else.

    Attributes:
        outgrown: whether they are.
    """

    def __init__(self) -> None:
        self.outgrown = False
        self._requests = self._prompt_tokens = self._lost_tokens = 0.0
        self._since_s = math.inf  # since when both hold, or they are outgrown
        self._vain_until_s = -math.inf

    @property
    def lost_ratio(self) -> float:
        """Of the tokens asked for lately, those that a cache had and has lost, 0 to 1."""
        return self._lost_tokens / self._prompt_tokens if self._prompt_tokens > 0.0 else 0.0

    def count(self, prompt_tokens: float, lost_tokens: float, kept: float) -> None:
        """A request leaves.

        Args:
            lost_tokens: of its prompt, those that a cache had and none has any more.
            kept: what is left of those before it.
        """
        self._requests = self._requests * kept + 1.0
        self._prompt_tokens = self._prompt_tokens * kept + prompt_tokens
        self._lost_tokens = self._lost_tokens * kept + min(lost_tokens, prompt_tokens)

    def look(self, memory_ratio: FloatArray, capacity_tokens: FloatArray, at_s: float) -> None:
        """See whether they are outgrown now.

        Args:
            memory_ratio: [n], of each KV cache what requests hold of it lately.
            capacity_tokens: [n], of each cache; what is not finite is unknown.
        """
        if self.outgrown:
            self._look_on(memory_ratio, at_s)
        elif (
            at_s < self._vain_until_s
            or self.lost_ratio < LOST_RATIO
            or not self._full(memory_ratio, capacity_tokens)
        ):
            self._since_s = math.inf
        else:
            self._since_s = min(self._since_s, at_s)
            if at_s - self._since_s >= SUSTAINED_S:
                self.outgrown, self._since_s = True, at_s

    def _look_on(self, memory_ratio: FloatArray, at_s: float) -> None:
        if at_s - self._since_s >= VAIN_AFTER_S and self.lost_ratio > VAIN_RATIO:
            self.outgrown, self._vain_until_s = False, at_s + VAIN_S
        elif memory_ratio.mean() < ROOMY_MEMORY_RATIO:
            self.outgrown = False
        if not self.outgrown:
            self._since_s = math.inf

    def _full(self, memory_ratio: FloatArray, capacity_tokens: FloatArray) -> bool:
        known = capacity_tokens[np.isfinite(capacity_tokens)]
        if self._requests < LEAST_REQUESTS or not len(known):
            return False
        prompts = float(known.mean()) * self._requests / self._prompt_tokens
        return bool(memory_ratio.mean() >= FULL_MEMORY_RATIO) and prompts >= LEAST_PROMPTS_A_CACHE
