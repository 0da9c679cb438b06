"""Feedback: what becomes of first tokens and ends: samples for the learner, blame for endpoints.

What they mean is told by the router (`ended_request.py`); it counts no load and tells nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Decision
from lodestar_extproc.fleet.bytes_per_token import BytesPerToken
from lodestar_extproc.fleet.health import ERRORS_IN_A_ROW, Health
from lodestar_extproc.fleet.tokens_per_medium import TokensPerMedium
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.sample import TrainingSample, training_sample
from lodestar_extproc.learning.sample_queue import SampleQueue
from lodestar_extproc.request import InferenceRequest, RequestKind
from lodestar_extproc.routing.choice_use import ChoiceUse
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken
from lodestar_extproc.routing.ending import BUSY_STATUSES, ODD_ENDINGS, Ending
from lodestar_extproc.routing.label import TAUGHT_AT_END, Label

ODD_IN_A_ROW = 2
"""Answers that are none, each to another prompt: one may be a prompt's own. Not tuned."""
CONNECT_FAILURE = "UF"
"""Envoy's response flag: the upstream could not be connected to."""


class Feedback:
    """Learns and blames, each once a request.

    Attributes:
        learner: in force; replaced by `adopt`.
        samples: wait for it, where it is told to learn later.
        teaches: whether anyone asks it, so that it is taught what passes; set by the owner.
        choices: whether Envoy uses them.
        bytes_per_token, tokens_per_medium: learned by model, from usage or an engine's blocks.
    """

    def __init__(self, live: LiveSettings, health: Health, learner: Learner) -> None:
        self.learner = learner
        self.teaches = False
        self.samples = SampleQueue(self._teach)
        self.choices = ChoiceUse()
        self.bytes_per_token = BytesPerToken(live)
        self.tokens_per_medium = TokensPerMedium()
        self._health = health
        self._served_models: set[str] = set()

    def adopt(self, learner: Learner) -> None:
        """Teach *learner* from now on, once anyone asks it; the last one learns what waits."""
        self.samples.catch_up()
        self.learner, self.teaches = learner, False

    def keep(self, addresses: Iterable[str]) -> None:
        """Others are gone, and what was learned of them alone goes with them."""
        self.samples.catch_up()
        self.learner.keep(addresses)

    @property
    def only_model(self) -> str:
        """What all served requests named; empty where they named several, or none yet."""
        return next(iter(self._served_models)) if len(self._served_models) == 1 else ""

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """The first token of *decision* passed."""
        self._blame(first_token.failed, first_token.at_s)
        if first_token.label is Label.FIRST_TOKEN:
            served = first_token.served or decision.address
            self._learn(decision, served, first_token.ttft_s, first_token.at_s)

    def ended(self, request: EndedRequest) -> None:
        """A request whose decision was used ended."""
        self.choices.ended(request)
        if request.is_ignored and request.first_token is not None:
            self._pardon(request.first_token.failed)
        self._blame(request.failed, request.completion.at_s)
        self._judge(request)
        self._learn_usage(request)
        self._note_model(request)
        served = request.served or request.decision.address
        if request.is_served and self.teaches:
            self._learn_generation(request, served)
        if request.label in TAUGHT_AT_END:
            censored = request.label is Label.CENSORED
            ttft_s = request.waited_s if censored else request.completion.ttft_s
            if ttft_s is not None:
                at_s = request.completion.at_s
                self._learn(request.decision, served, ttft_s, at_s, censored=censored)

    def _note_model(self, request: EndedRequest) -> None:
        model = request.decision.candidates.request.model
        if request.is_served and model and len(self._served_models) < 2:
            self._served_models.add(model)

    def _blame(self, failed: Iterable[str], at_s: float) -> None:
        """A retry went past these."""
        for address in failed:
            self._health.failed(address, at_s)
            self.learner.penalise(address, at_s)

    def _pardon(self, blamed: Iterable[str]) -> None:
        """No retry went past these, as it had looked: Envoy never asked them."""
        for address in blamed:
            self._health.pardon(address)
            self.learner.pardon(address)

    def _judge(self, request: EndedRequest) -> None:
        """What the end says of the endpoint that served."""
        served, at_s = request.served, request.completion.at_s
        if served is None:
            return
        prompt = request.decision.candidates.request.prompt_key
        if request.is_served:
            self._health.succeeded(served, at_s, prompt)
        elif self._is_blamed(request, served, prompt):
            self.learner.penalise(served, at_s)

    def _is_blamed(self, request: EndedRequest, served: str, prompt: int) -> bool:
        """Tell health of an end that speaks against *served*; whether it agrees."""
        completion = request.completion
        at_s = completion.at_s
        if request.ending is Ending.ERRORED:
            return self._health.errored(served, at_s, prompt)
        if request.ending is Ending.BROKEN_OFF:
            # What could not even be connected to is not the prompt's doing.
            reached = CONNECT_FAILURE not in completion.flags
            return self._health.failed(
                served,
                at_s,
                prompt if reached else None,
                in_mid_answer=request.first_token is not None,
            )
        if not _is_odd(request):
            return False
        return self._health.refused(
            served,
            at_s,
            prompt,
            needed=_needed(request),
            retry_after_s=completion.retry_after_s,
        )

    def _learn_usage(self, request: EndedRequest) -> None:
        if (tokens := request.completion.prompt_tokens) is not None:
            self.learn_length(request.decision.candidates.request, tokens)

    def learn_length(self, prompt: InferenceRequest, tokens: float) -> None:
        """Bytes a token from text alone; tokens a medium from what is left beside text."""
        if not prompt.is_plain:
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
        if not (self.teaches and self.learner.learns):
            return
        sample = training_sample(decision, address, ttft_s, at_s, censored=censored)
        if sample is not None:
            self.samples.add(sample)

    def _teach(self, sample: TrainingSample) -> None:
        self.learner.learn(sample)


def _needed(request: EndedRequest) -> int:
    """How many such ends, in a row, speak against an endpoint."""
    if request.completion.response_code in BUSY_STATUSES:
        return 1  # it says so itself
    # A refusal may be the client's doing: a key, a name. That an answer is none is not.
    return ERRORS_IN_A_ROW if request.ending is Ending.TURNED_AWAY else ODD_IN_A_ROW


def _is_odd(request: EndedRequest) -> bool:
    """Whether it ended as no request should, if others do better."""
    if request.ending is Ending.TURNED_AWAY or request.label is Label.IMPLAUSIBLE:
        return True
    # Of an API that is not known here, nor is what its answers look like.
    known = request.decision.candidates.request.kind is not RequestKind.UNKNOWN
    return known and request.ending in ODD_ENDINGS
