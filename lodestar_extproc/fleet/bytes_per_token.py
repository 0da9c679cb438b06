"""BytesPerToken: how many prompt bytes a token stands for, by model, learned from usage."""

from __future__ import annotations

from collections import OrderedDict

SMOOTHING = 0.1
"""Weight of one usage: a memory of ten prompts, which differ little in this. Set by judgement."""
LOWEST, HIGHEST = 0.5, 64.0
"""Outside of these a usage is no measurement of text: images, or a bug."""
MAX_MODELS = 1000
"""Clients name models; a made-up name must cost nothing lasting."""


class BytesPerToken:
    """A running mean for each model, and a default for models not heard of.

    >>> ratio = BytesPerToken(default=4.0)
    >>> ratio.learn("m", prompt_bytes=600, prompt_tokens=200)
    >>> round(ratio.of("m"), 2), ratio.of("other")
    (3.9, 4.0)
    """

    def __init__(self, default: float) -> None:
        self._default = default
        self._by_model: OrderedDict[str, float] = OrderedDict()

    def of(self, model: str) -> float:
        """Bytes a token of *model*'s prompts."""
        return self._by_model.get(model, self._default)

    def learn(self, model: str, *, prompt_bytes: int, prompt_tokens: int) -> None:
        """An engine counted *prompt_tokens* in a prompt of *prompt_bytes*."""
        ratio = prompt_bytes / prompt_tokens if prompt_tokens > 0 else 0.0
        if not LOWEST <= ratio <= HIGHEST:
            return
        known = self.of(model)
        self._by_model[model] = known + SMOOTHING * (ratio - known)
        self._by_model.move_to_end(model)
        if len(self._by_model) > MAX_MODELS:
            self._by_model.popitem(last=False)
