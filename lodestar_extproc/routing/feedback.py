"""Feedback: what becomes of first tokens and ends: samples for the learner, blame for endpoints.

It counts no load and tells nobody; the router does.
"""

from __future__ import annotations

from collections.abc import Sequence

from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.fleet.bytes_per_token import BytesPerToken
from lodestar_extproc.fleet.health import Health
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.sample import training_sample
from lodestar_extproc.request import InferenceRequest
from lodestar_extproc.routing.open_decisions import OpenDecision


class Feedback:
    """Learns and blames, each once a request.

    Args:
        sees_first_tokens: whether first tokens are seen here; else the access log times them.

    Attributes:
        learner: in force; replaced by the owner.
        bytes_per_token: learned from usage, by model.
    """

    def __init__(
        self, live: LiveSettings, health: Health, learner: Learner, *, sees_first_tokens: bool
    ) -> None:
        self.learner = learner
        self.bytes_per_token = BytesPerToken(live)
        self._live = live
        self._health = health
        self._sees_first_tokens = sees_first_tokens

    def first_token(self, entry: OpenDecision, event: FirstToken) -> None:
        """The first token of *entry* passed."""
        decision = entry.decision
        served = event.served or decision.address
        # Served elsewhere, by a retry: the time of the failed attempts is in this label. The access
        # log has the last attempt's own. In shadow mode nobody retried: the pick was not used.
        if served == decision.address or self._live.current.shadow:
            self._learn(entry, served, event.at_s - decision.at_s, event.at_s)
        elif len(tried := decision.tried_before(served)) < self._live.current.retry_candidates:
            # The access log would tell it too, when the answer ends: minutes later.
            self._blame_tried(entry, tried, event.at_s)

    def ended(self, entry: OpenDecision, event: Completion) -> None:
        """The answer of *entry*, which went where it was sent, ended."""
        decision = entry.decision
        self._blame(entry, event)
        self._learn_usage(decision.candidates.request, event)
        served = event.served or decision.address
        if event.outcome is Outcome.SERVED:
            self._learn_generation(entry, served, event)
            # A keep-alive begins a body before a token does, and then the log has timed that.
            timed = entry.body_began_with_token or not self._sees_first_tokens
            if timed and (event.response_code or 200) < 400:
                self._learn(entry, served, event.ttft_s, event.at_s)
        elif event.outcome is Outcome.CLIENT_GONE and entry.first_token_at_s is None:
            waited_s = event.duration_s or event.at_s - decision.at_s
            self._learn(entry, served, waited_s, event.at_s, censored=True)

    def _blame_tried(self, entry: OpenDecision, tried: Sequence[str], at_s: float) -> None:
        """A retry went past *tried*: they have failed."""
        if entry.blamed or self._live.current.shadow:
            return
        entry.blamed = bool(tried)
        for address in tried:
            self._health.failed(address, at_s)
            self.learner.penalise(address, at_s)

    def _blame(self, entry: OpenDecision, event: Completion) -> None:
        """Endpoints tried before the one that served have failed, and maybe that one too."""
        health, served = self._health, event.served
        n_failed = (event.attempts or 1) - 1
        tried = entry.decision.addresses[:n_failed] if n_failed else ()
        self._blame_tried(entry, [a for a in tried if a != served], event.at_s)
        if served is None:
            return
        if event.outcome is Outcome.SERVED:
            health.succeeded(served, event.at_s)
        elif event.outcome is Outcome.FAILED:
            self.learner.penalise(served, event.at_s)
            answered = event.response_code is not None and not event.flags
            (health.errored if answered else health.failed)(served, event.at_s)

    def _learn_usage(self, request: InferenceRequest, event: Completion) -> None:
        if event.prompt_tokens is not None:
            tokens, n_bytes = event.prompt_tokens, request.prompt_bytes
            self.bytes_per_token.learn(request.model, prompt_bytes=n_bytes, prompt_tokens=tokens)

    def _learn_generation(self, entry: OpenDecision, served: str, event: Completion) -> None:
        index = entry.decision.index_of(served)
        if index is None or not entry.decision.candidates.request.streaming:
            return
        generation_s = None
        if entry.first_token_at_s is not None:
            generation_s = event.at_s - entry.first_token_at_s
        elif event.duration_s is not None and event.ttft_s is not None:
            generation_s = event.duration_s - event.ttft_s
        if generation_s is not None and generation_s >= 0:
            endpoint = entry.decision.candidates.snapshot.endpoints[index]
            self.learner.generated(endpoint.accelerator, generation_s)

    def _learn(
        self,
        entry: OpenDecision,
        address: str,
        ttft_s: float | None,
        at_s: float,
        *,
        censored: bool = False,
    ) -> None:
        if ttft_s is None or entry.learned or not self.learner.learns:
            return
        if not entry.decision.candidates.request.streaming:
            return  # an answer in one piece has no first token to time
        sample = training_sample(entry.decision, address, ttft_s, at_s, censored=censored)
        if sample is not None:
            entry.learned = True
            self.learner.learn(sample)
