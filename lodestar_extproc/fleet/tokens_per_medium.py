"""TokensPerMedium: how many tokens an image, sound or file stands for, by model, from usage."""

from __future__ import annotations

from collections import OrderedDict

DEFAULT_TOKENS = 576.0
"""LLaVA-1.5's 24 x 24 patches (arXiv:2310.03744)."""
SMOOTHING = 0.1
"""Weight of the newest usage; as of bytes a token. Not tuned."""
LOWEST, HIGHEST = 1.0, 100_000.0
"""Outside of these it is no measurement: an engine that dropped the image, or a bug. An hour of
sound is 90,000 tokens at Whisper's 25 a second."""
MAX_MODELS = 1000
"""Clients name models; a made-up name must cost nothing lasting."""


class TokensPerMedium:
    """A running mean for each model.

    >>> tokens = TokensPerMedium()
    >>> tokens.learn("m", tokens=1576, n_media=1)
    >>> tokens.of("m"), tokens.of("other")
    (676.0, 576.0)
    """

    def __init__(self) -> None:
        self._by_model: OrderedDict[str, float] = OrderedDict()

    def of(self, model: str) -> float:
        """Tokens that *model* makes of a medium."""
        return self._by_model.get(model, DEFAULT_TOKENS)

    def learn(self, model: str, *, tokens: float, n_media: int) -> None:
        """An engine made *tokens* of *n_media*."""
        each = tokens / n_media
        if not LOWEST <= each <= HIGHEST:
            return
        known = self.of(model)
        self._by_model[model] = known + SMOOTHING * (each - known)
        self._by_model.move_to_end(model)
        if len(self._by_model) > MAX_MODELS:
            self._by_model.popitem(last=False)
