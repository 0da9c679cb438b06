"""Router: chooses an endpoint for a request and learns from what follows. Read this file first.

    route()        a request came: snapshot, features, ranking; it leaves, and is counted
    first_token()  its first token passed: learn its TTFT
    complete()     its answer ended: release what it took; learn, correct or blame

It knows no wire, no clock and no I/O.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from lodestar_extproc.completion import AnswerReport, Completion, FirstToken, KeptAnswer, Outcome
from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Candidates, Decision
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.demand import Demand
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.request import InferenceRequest, Subset
from lodestar_extproc.routing.admission import AdmissionQueue, Ticket, outlook
from lodestar_extproc.routing.answer_watch import AnswerWatch
from lodestar_extproc.routing.awaited_keepers import AwaitedKeepers
from lodestar_extproc.routing.considering import Considered, Considering
from lodestar_extproc.routing.departures import Departure, Departures
from lodestar_extproc.routing.ended_request import ended_request, observed_first_token
from lodestar_extproc.routing.feedback import Feedback
from lodestar_extproc.routing.kept_answers import KeptAnswers
from lodestar_extproc.routing.listener import Listeners, RouterListener
from lodestar_extproc.routing.look_ups import Lookup, key_of_lookup
from lodestar_extproc.routing.open_decisions import OpenDecisions
from lodestar_extproc.routing.pool_policies import PoolPolicies


class Router:
    """One pool: its fleet, its demand, its policy, its learner.

    Args:
        live: the pool's settings, which every part of it reads.
        policy: decides; *fallback* decides for bodies that could not be read.
        shadows: rank every request and never decide; what they draw of chance is their own.
        sees_first_tokens: whether an observing filter reports first tokens. Without one a request
            is taken to leave prefill when its prediction says so.
    """

    def __init__(
        self,
        pool: str,
        live: LiveSettings,
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
        self.origin = ""  # begins the ids of decisions, where it is set before them (`ids.py`)
        self.live = live
        self.fleet = fleet
        self._rng = rng
        demand = self.demand = Demand(fleet.endpoints)
        shadow_rng = random.Random(live.current.seed)
        policies = self._policies = PoolPolicies(
            policy, fallback, shadows, rng=rng, shadow_rng=shadow_rng
        )
        told = self.listeners = Listeners(listeners)
        sees = self._sees_first_tokens = sees_first_tokens
        self._open = OpenDecisions()
        feedback = self._feedback = Feedback(live, fleet.health, learner)
        fleet.followed.tell_lengths_to(feedback.learn_length)
        self.samples = feedback.samples  # that the learner is yet to learn
        self._watch = AnswerWatch(live, fleet, rng)
        kept = self.kept_answers = KeptAnswers(fleet, self._open)
        self.awaited = AwaitedKeepers(live, kept)
        self.departures = Departures(fleet, demand, policies, feedback, told, observes=sees)
        catch_up = self.departures.catch_up
        self._considering = Considering(
            pool, live, fleet, demand, policies, feedback, kept, catch_up, rng
        )
        self.admission = AdmissionQueue(live, self._considering.look)

    @property
    def settings(self) -> PoolSettings:
        return self.live.current

    @property
    def learner(self) -> Learner:
        """What has been learned of the pool, and learns on."""
        return self._feedback.learner

    def adopt(
        self, learner: Learner, policy: Policy, fallback: Policy, shadows: Sequence[Policy]
    ) -> None:
        """Decide and learn by these from now on; load and caches stay."""
        self.departures.catch_up()
        self._policies.adopt(policy, fallback, shadows)
        self._feedback.adopt(learner)
        self.admission.changed()

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Adopt a new membership of the fleet."""
        self.departures.catch_up()
        _, left = self.fleet.set_endpoints(endpoints)
        self.demand.adopt(self.fleet.endpoints)
        if left:
            self._feedback.keep(e.address for e in self.fleet.endpoints)
            self._watch.keep(e.address for e in self.fleet.endpoints)
        self.admission.changed()

    def bytes_per_token(self, model: str) -> float:
        """Prompt bytes a token of *model* stands for, as learned from lengths."""
        return self._feedback.bytes_per_token.of(model)

    def tokens_per_medium(self, model: str) -> float:
        """Tokens that *model* makes of an image or sound, as learned from usage."""
        return self._feedback.tokens_per_medium.of(model)

    @property
    def only_model(self) -> str:
        """What engines take where a request names no model; empty where nobody knows."""
        return self._feedback.only_model

    def draw_target_model(self, named: str) -> str:
        """Draw the model to ask an engine for where a client names *named*; advances the rng."""
        return self.settings.model_rewrites.target(named, self._rng)

    def draw_full_observation(self, decision_id: str) -> bool:
        """Draw whether an answer is watched to its end; advances the rng."""
        at = self._open.address_of(decision_id)
        return key_of_lookup(decision_id) is not None or self._watch.draw(at)

    def look_up(self, name: str, at_s: float, subset: Subset | None = None) -> Lookup:
        """Where to go for the kept answer or conversation *name*: no decision, and no load."""
        return self.kept_answers.look_up(self.pool, name, at_s, subset)

    def route(
        self,
        request: InferenceRequest,
        *,
        request_id: str,
        stream_id: str = "",
        at_s: float,
        subset: Subset | None = None,
        policy: Policy | None = None,
        held_s: float = 0.0,
    ) -> Decision:
        """Choose an endpoint of *subset* (None: of all) for *request*; count it in flight there.

        Args:
            stream_id: by which its end may be told where Envoy does not wait for the decision.
            policy: decides in place of the pool's own, where a route asks for it.
            held_s: how long it was held before.

        Raises:
            NoEndpoint: the pool has none there.
            Overloaded: it may be shed, and is predicted to be late everywhere.
        """
        considered = self._considering.consider(request, at_s, subset, policy, self.origin)
        return self._send(considered, request_id, stream_id, held_s)

    def route_or_hold(
        self,
        request: InferenceRequest,
        *,
        request_id: str,
        stream_id: str = "",
        at_s: float,
        subset: Subset | None = None,
        policy: Policy | None = None,
    ) -> Decision | Ticket:
        """As `route`; or a place in `admission`, where it is better held for a while.

        Whose turn has come there is to be routed.
        """
        considered = self._considering.consider(request, at_s, subset, policy, self.origin)
        unheeded = self.settings.shadow or self._feedback.choices.in_doubt
        # An outlook is not worked out where it would hold nothing.
        if self.admission.takes_more and not (unheeded or considered.keeper):
            fares = outlook(considered.candidates, considered.ranking)
            ticket = self.admission.offer(request, subset, considered.policy, fares, at_s)
            if ticket is not None:
                return ticket
        return self._send(considered, request_id, stream_id, 0.0)

    def candidates(
        self, request: InferenceRequest, at_s: float, subset: Subset | None = None
    ) -> Candidates:
        """*request* beside all it may go to: what a policy sees."""
        return self._considering.candidates(request, at_s, subset)

    def _send(
        self, considered: Considered, request_id: str, stream_id: str, held_s: float
    ) -> Decision:
        """Decide for the first in order, and let the request leave for there."""
        decision_id, policy, candidates, ranking, _ = considered
        policies, learner = self._policies, self.learner
        shadowed = policies.shadow_rankings(candidates)
        decision = Decision(
            decision_id=decision_id,
            request_id=request_id,
            at_s=candidates.snapshot.at_s,
            pool=self.pool,
            policy=policy.name,
            candidates=candidates,
            ranking=ranking,
            shadows=tuple([(s.name, r.order[0]) for s, r in shadowed]) if shadowed else (),
            predicted_by=None if ranking.predicted_ttft_s is None else learner.predicting,
            row=candidates.row(ranking.order[0]) if ranking.row is None else ranking.row,
            held_s=held_s,
        )
        self._open.add(decision, stream_id)
        self.departures.add(Departure(decision, policy, shadowed))
        return decision

    def first_token(self, event: FirstToken) -> None:
        """Count the request as decoding and learn its TTFT. Idempotent; unknown ids are ignored."""
        self.departures.catch_up()
        entry = self._open.get(event.decision_id)
        if entry is None or entry.first_token is not None:
            return
        settings, in_doubt = self.settings, self._feedback.choices.in_doubt
        first_token = entry.first_token = observed_first_token(
            entry.decision,
            event,
            shadow=settings.shadow or in_doubt,
            retry_candidates=settings.retry_candidates,
        )
        self.fleet.first_token(event.decision_id, event.at_s, event.served, watched=event.watched)
        self.admission.changed()
        self._feedback.first_token(entry.decision, first_token)
        self.listeners.first_token(entry.decision, first_token)

    def progressed(self, decision_id: str, at_s: float) -> None:
        """A part of an answer that is watched came. Unknown ids are ignored."""
        self.fleet.stalls.progressed(decision_id, at_s)

    def kept(self, event: KeptAnswer) -> None:
        """An answer told what its engine keeps. Unknown ids are ignored."""
        self.kept_answers.heard(event, self._open.decision(event.decision_id))

    def report(self, event: AnswerReport) -> None:
        """Keep what the engine said until the end is known. Unknown ids are ignored."""
        entry = self._open.get(event.decision_id)
        if entry is not None:
            entry.report = event

    def complete(self, event: Completion) -> bool:
        """Give back what the request took; learn from it or blame. Idempotent.

        Returns False when no open decision of this pool is meant.
        """
        self.departures.catch_up()
        entry = self._open.take(event.decision_id, event.stream_id)
        if entry is None:
            return False
        request = ended_request(
            entry.decision,
            entry.first_token,
            event if entry.report is None else event.with_report(entry.report),
            shadow=self.settings.shadow,
            sees_first_tokens=self._sees_first_tokens,
            in_doubt=self._feedback.choices.in_doubt,
        )
        if not self.kept_answers.ended(request):
            self.fleet.release(
                request.decision.decision_id,
                event.at_s,
                served=request.served,
                prompt_computed=request.prompt_computed,
                prompt_tokens=request.completion.prompt_tokens,
                cached_ratio=request.completion.cached_ratio,
                whole=request.is_served,
            )
        self.admission.changed()
        if request.used:
            self._feedback.ended(request)
            self._watch.ended(request)
        self.listeners.ended(request)
        return True

    def expire(self, at_s: float) -> None:
        """End the requests of which nothing was heard for the pool's request timeout."""
        timeout_s = self.settings.request_timeout_s
        for decision_id in self._open.older_than(at_s - timeout_s):
            self.complete(Completion(at_s, Outcome.EXPIRED, decision_id=decision_id))
        self.kept_answers.expire(at_s, timeout_s)

    @property
    def n_open(self) -> int:
        """Decisions whose answers have not ended."""
        return len(self._open)
