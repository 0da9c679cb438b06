"""BytesPerToken: how many prompt bytes a token stands for, by model, learned from lengths."""

from __future__ import annotations

from collections import OrderedDict

from lodestar_extproc.config.live_settings import LiveSettings

SMOOTHING = 0.1
"""Weight of the newest usage: after some twenty the setting is forgotten. Not tuned."""
LOWEST, HIGHEST = 0.5, 64.0
"""Outside of these a usage is no measurement of text: images, or a bug."""
MAX_MODELS = 1000
"""Clients name models; a made-up name must cost nothing lasting."""


class BytesPerToken:
    """A running mean for each model, and the setting for models not heard of.

    >>> from lodestar_extproc.config.settings import PoolSettings
    >>> ratio = BytesPerToken(LiveSettings(PoolSettings(bytes_per_token=4.0)))
    >>> ratio.learn("m", prompt_bytes=600, prompt_tokens=200)
    >>> round(ratio.of("m"), 2), ratio.of("other")
    (3.9, 4.0)
    """

    def __init__(self, live: LiveSettings) -> None:
        self._live = live
        self._by_model: OrderedDict[str, float] = OrderedDict()

    def of(self, model: str) -> float:
        """Bytes a token of *model*'s prompts."""
        known = self._by_model.get(model)
        return self._live.current.bytes_per_token if known is None else known

    def knows(self, model: str) -> bool:
        """Whether it was learned."""
        return model in self._by_model

    def learn(self, model: str, *, prompt_bytes: int, prompt_tokens: float) -> None:
        """An engine counted *prompt_tokens* in a prompt of *prompt_bytes*."""
        ratio = prompt_bytes / prompt_tokens if prompt_tokens > 0 else 0.0
        if not LOWEST <= ratio <= HIGHEST:
            return
        known = self.of(model)
        self._by_model[model] = known + SMOOTHING * (ratio - known)
        self._by_model.move_to_end(model)
        if len(self._by_model) > MAX_MODELS:
            self._by_model.popitem(last=False)
