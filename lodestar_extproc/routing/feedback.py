"""Feedback: what becomes of first tokens and ends: samples for the learner, blame for endpoints.

What they mean is told by the router (`ended_request.py`); it counts no load and tells nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Decision
from lodestar_extproc.fleet.bytes_per_token import BytesPerToken
from lodestar_extproc.fleet.health import Health
from lodestar_extproc.fleet.tokens_per_medium import TokensPerMedium
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.sample import training_sample
from lodestar_extproc.routing.ended_request import (
    TAUGHT_AT_END,
    EndedRequest,
    Ending,
    Label,
    ObservedFirstToken,
)


class Feedback:
    """Learns and blames, each once a request.

    Attributes:
        learner: in force; replaced by the owner.
        bytes_per_token, tokens_per_medium: learned from usage, by model.
    """

    def __init__(self, live: LiveSettings, health: Health, learner: Learner) -> None:
        self.learner = learner
        self.bytes_per_token = BytesPerToken(live)
        self.tokens_per_medium = TokensPerMedium()
        self._health = health

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """The first token of *decision* passed."""
        self._blame(first_token.failed, first_token.at_s)
        if first_token.label is Label.FIRST_TOKEN:
            served = first_token.served or decision.address
            self._learn(decision, served, first_token.ttft_s, first_token.at_s)

    def ended(self, request: EndedRequest) -> None:
        """A request whose decision was used ended."""
        self._blame(request.failed, request.completion.at_s)
        self._judge(request)
        self._learn_usage(request)
        served = request.served or request.decision.address
        if request.served_whole:
            self._learn_generation(request, served)
        if request.label in TAUGHT_AT_END:
            censored = request.label is Label.CENSORED
            ttft_s = request.waited_s if censored else request.completion.ttft_s
            if ttft_s is not None:
                at_s = request.completion.at_s
                self._learn(request.decision, served, ttft_s, at_s, censored=censored)

    def _blame(self, failed: Iterable[str], at_s: float) -> None:
        """A retry went past these."""
        for address in failed:
            self._health.failed(address, at_s)
            self.learner.penalise(address, at_s)

    def _judge(self, request: EndedRequest) -> None:
        """What the end says of the endpoint that served."""
        served, at_s = request.served, request.completion.at_s
        if served is None:
            return
        if request.served_whole:
            self._health.succeeded(served, at_s)
        elif request.ending is Ending.ERRORED:
            self.learner.penalise(served, at_s)
            self._health.errored(served, at_s)
        elif request.ending is Ending.BROKEN_OFF:
            self.learner.penalise(served, at_s)
            self._health.failed(served, at_s)

    def _learn_usage(self, request: EndedRequest) -> None:
        """Bytes a token from text alone; tokens a medium from what is left beside text."""
        prompt, tokens = request.decision.candidates.request, request.completion.prompt_tokens
        if tokens is None or not prompt.is_plain:
            return
        n_bytes = prompt.prompt_bytes if prompt.text_bytes is None else prompt.text_bytes
        ratio, model = self.bytes_per_token, prompt.model
        if not prompt.n_media:
            ratio.learn(model, prompt_bytes=n_bytes, prompt_tokens=tokens)
        elif ratio.knows(model):
            rest = tokens - n_bytes / ratio.of(model)
            self.tokens_per_medium.learn(model, tokens=rest, n_media=prompt.n_media)

    def _learn_generation(self, request: EndedRequest, served: str) -> None:
        candidates, index = request.decision.candidates, request.decision.index_of(served)
        generation_s = request.generation_s
        if index is None or generation_s is None or not candidates.request.streaming:
            return
        if generation_s >= 0:
            self.learner.generated(candidates.snapshot.endpoints[index].accelerator, generation_s)

    def _learn(
        self,
        decision: Decision,
        address: str,
        ttft_s: float,
        at_s: float,
        *,
        censored: bool = False,
    ) -> None:
        if not self.learner.learns:
            return
        sample = training_sample(decision, address, ttft_s, at_s, censored=censored)
        if sample is not None:
            self.learner.learn(sample)
