"""Every policy, cost function and reference is asked over and over, and stays what it was."""

import random

import pytest

from builders import a_fleet, a_prompt, a_request, candidates_of, live_settings
from lodestar_extproc.config.settings import COSTS
from lodestar_extproc.evaluation.clairvoyant import Clairvoyant, Oracle
from lodestar_extproc.evaluation.contenders import NoLearner
from lodestar_extproc.evaluation.fleets import find_fleet
from lodestar_extproc.evaluation.references import Conductor, LMetricBySpeed
from lodestar_extproc.evaluation.workloads.catalog import find_workload
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.learning.background import TrainingInPlace
from lodestar_extproc.policies.heuristics import HEURISTICS
from lodestar_extproc.policies.session_affinity import SessionAffinity
from lodestar_extproc.routing.assembly import new_cost, new_learner, new_policy
from lodestar_extproc.routing.router import Router
from lodestar_extproc.simulator.cluster import VirtualCluster
from lodestar_extproc.simulator.machine import new_machine
from policy_checks import AskedOften, state_of

N_REQUESTS = 160
LEARNED = {f"learned {cost}": {"policy": "learned", "cost": cost} for cost in COSTS}
PAPER = {
    "lodestar_paper": {
        "policy": "lodestar_paper",
        "predictor": "mlp",
        "burn_in_samples": 0,
        "mlp_retrain_samples": 100,
    }
}
FALLING_BACK = {
    f"learned by {name}": {"policy": "learned", "fallback_policy": name, "burn_in_samples": 10**6}
    for name in ("round_robin", "session_affinity")
}
SETTINGS = {name: {"policy": name} for name in HEURISTICS} | LEARNED | PAPER | FALLING_BACK
CLAIRVOYANT = [f"clairvoyant {cost}" for cost in COSTS]
REFERENCES = ["conductor", "lmetric_by_speed"]


class World:
    """A virtual fleet under load, and one policy that is asked often, or is not."""

    def __init__(self, name, *, often, tmp_path):
        specs = find_fleet("a30x4+v100x4").specs
        self.machines = [new_machine(i, spec, i) for i, spec in enumerate(specs)]
        self.oracle = Oracle()
        changes = {"seed": 1, "ttft_slo_s": 2.0, "burn_in_samples": 30} | SETTINGS.get(name, {})
        self.live = live_settings(**changes)
        rng = random.Random(1)
        self.learner = new_learner(self.live, rng, TrainingInPlace)
        self.policy = inner = self._policy(name)
        if often:
            shadows = [HEURISTICS["round_robin"](), new_policy(self.live, self.learner)]
            self.policy = AskedOften(inner, shadows, lambda: (self.router.demand, self.learner))
        self.router = Router(
            "pool",
            self.live,
            fleet=Fleet(self.live, [m.endpoint for m in self.machines]),
            policy=self.policy,
            fallback=HEURISTICS[self.live.current.fallback_policy](),
            learner=self.learner,
            rng=rng,
        )
        self.cluster = VirtualCluster(self.machines, [self.router], seed=1)
        self.oracle.watch(self.cluster)
        workload = find_workload("prefix50", traces=tmp_path, tokens_per_hash=None)
        self.records = self.cluster.run(workload.generate(14.0, 1, N_REQUESTS), N_REQUESTS)

    def _policy(self, name):
        kind, _, cost = name.partition(" ")
        match kind:
            case "clairvoyant":
                return Clairvoyant(self.oracle, new_cost(self.live, NoLearner(self.live), cost))
            case "conductor":
                return Conductor(self.machines)
            case "lmetric_by_speed":
                return LMetricBySpeed(self.machines)
        return new_policy(self.live, self.learner)


@pytest.mark.parametrize("name", [*SETTINGS, *CLAIRVOYANT, *REFERENCES])
def test_a_policy_that_is_asked_often_answers_alike_and_is_what_it_was(name, tmp_path):
    asked = World(name, often=True, tmp_path=tmp_path)

    assert asked.policy.n_looked >= N_REQUESTS // 25
    once = World(name, often=False, tmp_path=tmp_path)
    assert [r.endpoint for r in asked.records] == [r.endpoint for r in once.records]


@pytest.mark.parametrize("name", HEURISTICS)
def test_the_first_question_ever_changes_nothing(name):
    policy = HEURISTICS[name]()
    before = state_of(policy)
    policy.rank(candidates_of(a_fleet(3), a_request(session=7)), random.Random(0))

    assert state_of(policy) == before


def test_what_is_compared_sees_a_change_anywhere():
    policy = SessionAffinity()
    candidates = candidates_of(a_fleet(3), a_request(a_prompt(100)))
    before = state_of({"deep": [policy]})
    policy.dispatched(candidates, policy.rank(candidates, random.Random(0)))

    assert state_of({"deep": [policy]}) != before
