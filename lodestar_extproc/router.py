"""Router: chooses an endpoint for a request and learns from what follows. Read this file first.

    route()        a request came: snapshot, features, ranking, and it is counted as in flight
    first_token()  its first token passed: learn its TTFT
    complete()     its answer ended: release what it took; learn, correct or blame

It knows no wire, no clock and no I/O.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Sequence
from typing import Protocol

from lodestar_extproc.completion import AnswerReport, Completion, FirstToken, Outcome
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Candidates, Decision, Ranking, Reason
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.bytes_per_token import BytesPerToken
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.open_decisions import OpenDecision, OpenDecisions
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.request import InferenceRequest, RequestKind
from lodestar_extproc.sample import training_sample
from lodestar_extproc.subset import Subset
from lodestar_extproc.unserved import NoEndpoint, shed_if_late


class RouterListener(Protocol):
    """Who is told what happened: metrics, the journal, the dashboard."""

    def decided(self, decision: Decision) -> None: ...

    def first_token(self, decision: Decision, event: FirstToken) -> None: ...

    def completed(self, decision: Decision, event: Completion) -> None: ...


class Router:
    """One pool: its fleet, its policy, its learner.

    Args:
        policy: decides; *fallback* decides for bodies that could not be read.
        shadows: score every request and never decide.
        sees_first_tokens: whether an observing filter reports first tokens. Without one a request
            is taken to leave prefill when its prediction says so.
    """

    def __init__(
        self,
        pool: str,
        settings: PoolSettings,
        *,
        fleet: Fleet,
        policy: Policy,
        fallback: Policy,
        learner: Learner,
        rng: random.Random,
        shadows: Sequence[Policy] = (),
        listeners: Sequence[RouterListener] = (),
        sees_first_tokens: bool = True,
    ) -> None:
        self.pool = pool
        self.settings = settings
        self.fleet = fleet
        self.learner = learner
        self._policy = policy
        self._fallback = fallback
        self._shadows = tuple(shadows)
        self._rng = rng
        self._listeners = tuple(listeners)
        self._sees_first_tokens = sees_first_tokens
        self._open = OpenDecisions()
        self._bytes_per_token = BytesPerToken(settings.bytes_per_token)

    def deciding_by(self, policy: Policy) -> Router:
        """The same pool, in-flight counts and learner, deciding by another policy."""
        other = copy.copy(self)
        other._policy = policy  # noqa: SLF001
        return other

    def adopt(
        self, settings: PoolSettings, policy: Policy, fallback: Policy, shadows: Sequence[Policy]
    ) -> None:
        """Decide by new settings from now on; load, caches and what was learned stay."""
        self.settings, self._policy, self._fallback = settings, policy, fallback
        self._shadows = tuple(shadows)

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Adopt a new membership of the fleet."""
        _, left = self.fleet.set_endpoints(endpoints)
        for address in left:
            self.learner.left(address)

    def bytes_per_token(self, model: str) -> float:
        """Prompt bytes a token of *model* stands for, as learned from usage."""
        return self._bytes_per_token.of(model)

    def should_observe_to_end(self) -> bool:
        """Whether the next answer is one of the share that is watched for its usage."""
        return self._rng.random() < self.settings.observed_ratio

    # -- a request came ---

    def route(
        self,
        request: InferenceRequest,
        *,
        request_id: str,
        at_s: float,
        subset: Subset | None = None,
        sheddable: bool = False,
    ) -> Decision:
        """Choose an endpoint of *subset* (None: of all) for *request*; count it in flight there.

        Raises:
            NoEndpoint: the pool has none there.
            Overloaded: *sheddable*, and predicted to be late everywhere.
        """
        candidates = self.candidates(request, at_s, subset)
        if len(candidates) == 0:
            raise NoEndpoint(f"pool {self.pool} has no endpoint for this request")
        decision_id = f"{self.pool}.{self._rng.getrandbits(64):016x}"
        ranking = self._rank(candidates)
        if sheddable:
            shed_if_late(ranking, request.ttft_slo_s or self.settings.ttft_slo_s)
        decision = Decision(
            decision_id=decision_id,
            request_id=request_id,
            at_s=at_s,
            pool=self.pool,
            policy=self._policy.name,
            candidates=candidates,
            ranking=ranking,
            shadows=tuple((s.name, s.rank(candidates, self._rng).order[0]) for s in self._shadows),
        )
        self._open.add(decision)
        self._dispatch(decision)
        for listener in self._listeners:
            listener.decided(decision)
        return decision

    def candidates(
        self, request: InferenceRequest, at_s: float, subset: Subset | None = None
    ) -> Candidates:
        """*request* beside every routable endpoint it may go to: what a policy sees."""
        snapshot = self.fleet.snapshot(at_s, subset)
        matched_tokens, matched_ratio = self.fleet.match(request, snapshot.endpoints)
        rate_s = self.learner.prefill_s_per_ktoken(snapshot.endpoints)
        return Candidates(request, snapshot, matched_tokens, matched_ratio, rate_s)

    def _rank(self, candidates: Candidates) -> Ranking:
        if len(candidates) == 1:
            return Ranking((0,), reason=Reason.ONLY_ENDPOINT)
        if candidates.request.kind is RequestKind.UNKNOWN:
            order = self._fallback.rank(candidates, self._rng).order
            return Ranking(order, reason=Reason.UNPARSED)
        return self._policy.rank(candidates, self._rng)

    def _dispatch(self, decision: Decision) -> None:
        request, chosen = decision.candidates.request, decision.chosen
        seen = self._sees_first_tokens and request.streaming
        self.fleet.dispatch(
            decision.decision_id,
            request,
            decision.address,
            uncached_tokens=float(decision.candidates.uncached_tokens[chosen]),
            at_s=decision.at_s,
            expected_first_token_at_s=None if seen else decision.at_s + decision.expected_ttft_s,
        )

    # -- its first token passed ---

    def first_token(self, event: FirstToken) -> None:
        """Count the request as decoding and learn its TTFT. Idempotent; unknown ids are ignored."""
        entry = self._open.get(event.decision_id)
        if entry is None or entry.first_token_at_s is not None:
            return
        entry.first_token_at_s = event.at_s
        entry.body_began_before = event.body_began_before
        self.fleet.first_token(event.decision_id, event.at_s, event.served)
        decision = entry.decision
        served = event.served or decision.address
        # Served elsewhere, by a retry: the time of the failed attempts is in this label. The access
        # log has the last attempt's own. In shadow mode nobody retried: the pick was not used.
        if served == decision.address or self.settings.shadow:
            self._learn(entry, served, event.at_s - decision.at_s, event.at_s)
        elif len(tried := decision.tried_before(served)) < self.settings.fallback_candidates:
            # The access log would tell it too, when the answer ends: minutes later.
            self._blame_tried(entry, tried, event.at_s)
        for listener in self._listeners:
            listener.first_token(decision, event)

    # -- its answer ended ---

    def report(self, event: AnswerReport) -> None:
        """Keep what the engine said until the end is known. Unknown ids are ignored."""
        entry = self._open.get(event.decision_id)
        if entry is not None:
            entry.report = event

    def complete(self, event: Completion) -> bool:
        """Give back what the request took; learn from it or blame. Idempotent.

        Returns False when no open decision of this pool is meant.
        """
        entry = self._open.take(event.decision_id, event.request_id)
        if entry is None:
            return False
        if entry.report is not None:
            event = event.with_report(entry.report)
        self._settle(entry, event)
        for listener in self._listeners:
            listener.completed(entry.decision, event)
        return True

    def expire(self, at_s: float) -> None:
        """End the requests of which nothing was heard for the pool's request timeout."""
        for decision_id in self._open.older_than(at_s - self.settings.request_timeout_s):
            self.complete(Completion(at_s, Outcome.EXPIRED, decision_id=decision_id))

    def _settle(self, entry: OpenDecision, event: Completion) -> None:
        decision = entry.decision
        # Without our id in it, Envoy had gone on without us: the pick was never used.
        used = bool(event.decision_id)
        computed = used and (entry.first_token_at_s is not None or event.outcome is Outcome.SERVED)
        self.fleet.release(
            decision.decision_id, event.at_s, served=event.served, prompt_computed=computed
        )
        if not used:
            return
        self._blame(entry, event)
        self._learn_usage(decision.candidates.request, event)
        served = event.served or decision.address
        if event.outcome is Outcome.SERVED:
            # A keep-alive begins a body before a token does, and then the log has timed that.
            timed = entry.body_began_with_token or not self._sees_first_tokens
            if timed and (event.response_code or 200) < 400:
                self._learn(entry, served, event.ttft_s, event.at_s)
        elif event.outcome is Outcome.CLIENT_GONE and entry.first_token_at_s is None:
            waited_s = event.duration_s or event.at_s - decision.at_s
            self._learn(entry, served, waited_s, event.at_s, censored=True)

    def _blame_tried(self, entry: OpenDecision, tried: Sequence[str], at_s: float) -> None:
        """A retry went past *tried*: they have failed."""
        if entry.blamed or self.settings.shadow:
            return
        entry.blamed = bool(tried)
        for address in tried:
            self.fleet.health.failed(address, at_s)
            self.learner.penalise(address, at_s)

    def _blame(self, entry: OpenDecision, event: Completion) -> None:
        """Endpoints tried before the one that served have failed, and maybe that one too."""
        health, served = self.fleet.health, event.served
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
            self._bytes_per_token.learn(request.model, prompt_bytes=n_bytes, prompt_tokens=tokens)

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

    # -- for those who watch ---

    @property
    def n_open(self) -> int:
        """Decisions whose answers have not ended."""
        return len(self._open)
