"""What each safeguard of learning is for: the same virtual run with it and without it."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from builders import live_settings
from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Reason
from lodestar_extproc.evaluation.fleets import find_fleet
from lodestar_extproc.evaluation.scenarios import Crash, Joining, Slowdown
from lodestar_extproc.evaluation.workloads.catalog import find_workload
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.trust import Trust
from lodestar_extproc.policies.heuristics import HEURISTICS
from lodestar_extproc.routing.assembly import new_policy
from lodestar_extproc.routing.router import Router
from lodestar_extproc.simulator.cluster import VirtualCluster
from lodestar_extproc.simulator.envoy_signals import EnvoySignals
from lodestar_extproc.simulator.machine import new_machine

RATE_PER_S = 12.0
SIGNALS, SETTINGS = EnvoySignals(), PoolSettings()


@dataclass(frozen=True)
class World:
    """One run, and what happens in it."""

    fleet: str = "a30x8"
    n_requests: int = 800
    rate_per_s: float = RATE_PER_S
    seed: int = 1
    signals: EnvoySignals = SIGNALS
    incidents: tuple = ()
    settings: PoolSettings = SETTINGS

    def run(self, learner):
        specs = find_fleet(self.fleet).specs
        machines = [new_machine(i, spec, i) for i, spec in enumerate(specs)]
        live = LiveSettings(self.settings)
        router = Router(
            "safeguards",
            live,
            fleet=Fleet(live, [m.endpoint for m in machines]),
            policy=new_policy(live, learner),
            fallback=HEURISTICS[self.settings.fallback_policy](),
            learner=learner,
            rng=random.Random(self.seed),
        )
        cluster = VirtualCluster(machines, [router], signals=self.signals, seed=self.seed)
        for incident in self.incidents:
            incident.plan(cluster, self.n_requests / self.rate_per_s)
        workload = find_workload("prefix50", traces=Path("no-traces"), tokens_per_hash=None)
        arrivals = workload.generate(self.rate_per_s, self.seed, self.n_requests)
        return cluster.run(arrivals, self.n_requests)


class Credulous(Trust):
    """Believes any model from the start."""

    def judge(self, *_, **__):
        return Reason.MODEL

    def reason(self, n_samples):
        return Reason.MODEL


class Contrary(EnginePredictor):
    """A model that is wrong as can be: the longer the wait, the shorter it says."""

    def predict(self, features, endpoints):
        estimate = super().predict(features, endpoints)
        return estimate._replace(ttft_s=0.25 / estimate.ttft_s)

    def ttft_s(self, sample):
        return 0.25 / super().ttft_s(sample)


class Unwatching(Learner):
    """Notices no drift: no endpoint's past is ever cut."""

    def _score(self, address, predicted_s, observed_s):
        self._errors.record(address, predicted_s, observed_s)
        self._trust.update(address, self._errors)


class Uncensored(Learner):
    """Learns only from first tokens, not from clients who left before one."""

    def learn(self, sample):
        if not sample.censored:
            super().learn(sample)


class Forgiving(Learner):
    """Adds nothing to the cost of an endpoint that failed."""

    def penalise(self, address, at_s):
        pass


def a_learner(kind=Learner, model=EnginePredictor, trust=Trust, **settings):
    return kind(model(), trust(live_settings(**settings)))


def mean_ttft_s(records):
    return float(np.nanmean([r.ttft_s for r in records]))


def share_of(endpoint, records):
    return sum(r.endpoint == endpoint for r in records) / len(records)


def test_trust_keeps_a_model_that_is_wrong_from_deciding():
    world = World()
    fallback = mean_ttft_s(world.run(a_learner(burn_in_samples=10**9)))
    guarded = mean_ttft_s(world.run(a_learner(model=Contrary)))
    credulous = mean_ttft_s(world.run(a_learner(model=Contrary, trust=Credulous)))

    assert guarded <= 1.05 * fallback
    assert credulous > 1.3 * fallback


def test_the_fallback_decides_until_enough_was_learned():
    records = World(n_requests=300).run(a_learner())
    reasons = [r.reason for r in records]
    first_by_model = reasons.index(Reason.MODEL)

    assert set(reasons[:first_by_model]) == {Reason.BURN_IN}
    assert 50 <= first_by_model < 100
    assert Reason.BURN_IN not in reasons[first_by_model:]


def test_a_drift_that_is_noticed_takes_the_traffic_off_a_slowed_instance():
    noticed, unnoticed = (
        sum(
            share_of(2, world.run(a_learner(kind))[900:])
            for world in (
                World(n_requests=2100, seed=seed, incidents=(Slowdown(2, factor=5.0),))
                for seed in (1, 2, 3, 4)
            )
        )
        for kind in (Learner, Unwatching)
    )

    assert noticed < 0.8 * unnoticed


def test_clients_who_leave_tell_of_an_instance_that_never_answers_in_time():
    impatient = EnvoySignals(abort_ratio=1.0, abort_after_s=1.0)
    world = World(rate_per_s=10.0, signals=impatient, incidents=(Slowdown(2, factor=10.0),))
    heard, unheard = (
        share_of(2, world.run(a_learner(kind))[300:]) for kind in (Learner, Uncensored)
    )

    assert heard < 0.75 * unheard


def test_penalties_keep_requests_from_an_instance_that_fails_now_and_then():
    blips = tuple(Crash(1, lasts_s=1.0, at=share) for share in np.arange(0.2, 0.6, 0.04))
    world = World(n_requests=1000, incidents=blips)
    careful, forgiving = (
        sum(r.failed for r in world.run(a_learner(kind))) for kind in (Learner, Forgiving)
    )

    # Health alone finds out what breaks off twice: penalties save the rest.
    assert careful < 0.75 * forgiving


@pytest.mark.parametrize(("ratio", "is_tried"), [(0.0, False), (0.02, True)])
def test_exploration_tries_an_instance_nobody_would_choose(ratio, is_tried):
    settings = PoolSettings(exploration_ratio=ratio, cost="ttft")
    world = World("h100x3+l20x3+a30x2", 900, 3.0, incidents=(Joining(7),), settings=settings)

    assert (share_of(7, world.run(a_learner())) > 0) is is_tried


def test_a_checkpoint_spares_the_beginning():
    learned, warm = a_learner(), a_learner()
    World().run(learned)
    warm.restore(learned.state())
    world = World(n_requests=200, seed=6)
    reasons = [{r.reason for r in world.run(learner)} for learner in (warm, a_learner())]

    assert Reason.BURN_IN not in reasons[0]
    assert Reason.BURN_IN in reasons[1]
