"""What the virtual cluster tells routers, and when."""

import math
import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from lodestar_extproc.assembly import new_fleet
from lodestar_extproc.completion import Outcome
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Reason
from lodestar_extproc.learning.engine_model import EngineModel
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.trust import Trust
from lodestar_extproc.policies.round_robin import RoundRobin
from lodestar_extproc.router import Router
from lodestar_extproc.simulator.accelerators import ACCELERATORS
from lodestar_extproc.simulator.arrival import VirtualRequest
from lodestar_extproc.simulator.cluster import VirtualCluster
from lodestar_extproc.simulator.edge import Edge
from lodestar_extproc.simulator.machine import new_machine

A30 = ACCELERATORS["a30"]


@dataclass
class Listener:
    decided_at_s: list = field(default_factory=list)
    first_tokens: list = field(default_factory=list)
    completions: list = field(default_factory=list)

    def decided(self, decision):
        self.decided_at_s.append(decision.at_s)

    def first_token(self, decision, event):
        self.first_tokens.append((decision, event))

    def completed(self, decision, event):
        self.completions.append((decision, event))


class Arrivals:
    """Requests at their times; each session has *n_turns*, *think_s* apart."""

    def __init__(self, *requests, n_turns=1, think_s=math.inf):
        self.requests, self.n_turns, self.min_think_s = requests, n_turns, think_s

    def __iter__(self):
        return iter(self.requests)

    def next_turns(self, request, ended_at_s):
        if request.turn + 1 >= self.n_turns:
            return ()
        return (a_prompt(ended_at_s + self.min_think_s, turn=request.turn + 1),)


def a_prompt(at_s=0.0, tokens=400, output=20, seed=0, **more):
    ids = np.random.default_rng(seed).integers(1, 1 << 60, tokens // 16, dtype=np.uint64)
    return VirtualRequest(at_s, ids, tokens, output, **more)


def a_cluster(n=2, n_routers=1, **edge):
    machines = [new_machine(i, A30, seed=i) for i in range(n)]
    listener = Listener()
    routers = [
        Router(
            "p",
            PoolSettings(),
            fleet=new_fleet(PoolSettings(), [m.endpoint for m in machines]),
            policy=RoundRobin(),
            fallback=RoundRobin(),
            learner=Learner(EngineModel(), Trust()),
            rng=random.Random(i),
            listeners=[listener],
        )
        for i in range(n_routers)
    ]
    return VirtualCluster(machines, routers, edge=Edge(**edge), seed=1), listener


def test_a_request_is_served_and_everything_is_given_back():
    cluster, _ = a_cluster()
    (record,) = cluster.run(Arrivals(a_prompt()), 1)
    (router,) = cluster.routers

    assert 0.02 < record.ttft_s < record.e2e_s
    assert record.tpot_s == pytest.approx(0.021, abs=0.004)
    assert (record.endpoint, record.failed, record.reason) == (0, False, Reason.POLICY)
    assert router.n_open == router.fleet.n_in_flight == 0


def test_the_router_hears_as_late_as_the_edge_tells_it():
    cluster, listener = a_cluster(first_token_delay_s=0.5, end_delay_min_s=1.0, end_delay_max_s=2.0)
    (record,) = cluster.run(Arrivals(a_prompt(at_s=3.0)), 1)
    ((_, token),), ((_, end),) = listener.first_tokens, listener.completions

    assert token.at_s == pytest.approx(3.0 + record.ttft_s + 0.5)
    assert 1.0 <= end.at_s - 3.0 - record.e2e_s <= 2.0
    assert end.outcome is Outcome.SERVED
    assert end.output_tokens is None, "no default edge counts tokens"


def test_a_turn_comes_after_the_answer_and_the_pause_whatever_else_is_due():
    cluster, listener = a_cluster()
    first = a_prompt(session=0)
    cluster.run(Arrivals(first, a_prompt(at_s=60.0, seed=9), n_turns=3, think_s=0.7), 4)
    first_ended_s, second_ended_s = (
        cluster.records[i].arrived_s + cluster.records[i].e2e_s for i in (0, 1)
    )

    assert listener.decided_at_s[:3] == pytest.approx(
        [0.0, first_ended_s + 0.7, second_ended_s + 0.7]
    )
    assert listener.decided_at_s[3] == 60.0


def test_the_next_turn_finds_its_beginning_in_the_cache():
    cluster, _ = a_cluster(n=1)
    cluster.run(Arrivals(a_prompt(session=0), n_turns=2, think_s=0.1), 2)

    assert [r.cached_tokens for r in cluster.records] == [0, 384]


def test_what_is_scraped_is_what_engines_show_and_as_old_as_the_interval():
    cluster, _ = a_cluster(scrape_interval_s=4.0)
    requests = [a_prompt(at_s=at_s, output=400, seed=int(at_s)) for at_s in (1.0, 2.0, 5.0, 6.5)]
    seen = []
    cluster.plan(6.0, lambda: seen.append(cluster.routers[0].fleet.everything(6.0)))
    cluster.run(Arrivals(*requests), 4)
    (snapshot,) = seen

    assert snapshot.running_requests.sum() == 2  # the two that had arrived by 4.0
    assert snapshot.scrape_age_s == pytest.approx([2.0, 2.0])
    assert 0 < snapshot.kv_usage_ratio.max() < 0.1


def test_without_scrapes_nothing_scraped_is_known():
    cluster, _ = a_cluster(scrape_interval_s=math.inf)
    cluster.run(Arrivals(a_prompt()), 1)

    assert np.isnan(cluster.routers[0].fleet.everything(1.0).running_requests).all()


def test_a_refused_request_goes_to_the_next_candidate_and_the_first_is_blamed():
    cluster, listener = a_cluster()
    cluster.machines[0].refusing = True
    cluster.run(Arrivals(a_prompt()), 1)
    ((_, end),) = listener.completions

    assert (cluster.records[0].endpoint, cluster.records[0].failed) == (1, False)
    assert (end.attempts, end.served) == (2, cluster.machines[1].endpoint.address)
    assert not cluster.routers[0].fleet.health.all_healthy


def test_a_request_that_everyone_refuses_fails_and_counts():
    cluster, listener = a_cluster()
    for machine in cluster.machines:
        machine.refusing = True
    (record,) = cluster.run(Arrivals(a_prompt()), 1)

    assert record.failed
    assert math.isnan(record.ttft_s)
    assert listener.completions[0][1].outcome is Outcome.FAILED
    assert cluster.routers[0].fleet.n_in_flight == 0


def test_a_crash_breaks_off_what_the_machine_holds_and_a_restart_serves_again():
    cluster, listener = a_cluster(n=1)
    long, later = a_prompt(output=400), a_prompt(at_s=30.0, seed=2)
    cluster.plan(2.0, lambda: cluster.crash(0))
    cluster.plan(20.0, lambda: cluster.machines[0].restart(seed=3))
    broken, served = cluster.run(Arrivals(long, later), 2)

    assert broken.failed
    assert math.isnan(broken.e2e_s)
    assert not served.failed
    assert [e.outcome for _, e in listener.completions] == [Outcome.FAILED, Outcome.SERVED]
    assert cluster.routers[0].fleet.n_in_flight == 0


def test_clients_that_leave_give_back_what_they_took_and_are_no_answers():
    cluster, listener = a_cluster(n=1, abort_ratio=1.0, abort_after_s=0.5)
    slow = [a_prompt(tokens=9000, seed=i) for i in range(4)]
    records = cluster.run(Arrivals(*slow), 4)
    outcomes = [e.outcome for _, e in listener.completions]

    assert all(r.failed and math.isnan(r.ttft_s) for r in records)
    assert outcomes == [Outcome.CLIENT_GONE] * 4
    assert all(r.e2e_s == pytest.approx(0.5) for r in records)
    assert cluster.machines[0].engine.in_flight() == 0
    assert cluster.routers[0].fleet.n_in_flight == 0


def test_a_false_label_is_heard_by_the_router_and_does_not_change_the_truth():
    cluster, listener = a_cluster(n=1, false_label_ratio=1.0)
    (record,) = cluster.run(Arrivals(a_prompt()), 1)
    honest, _ = a_cluster(n=1)
    (truth,) = honest.run(Arrivals(a_prompt()), 1)
    ((decision, token),) = listener.first_tokens

    assert record.ttft_s == pytest.approx(truth.ttft_s)
    assert abs(math.log((token.at_s - decision.at_s) / record.ttft_s)) > 0.05


def test_a_wrong_estimate_of_the_tokens_scales_all_lengths_the_router_sees():
    request = a_prompt(tokens=320)
    seen = Edge(token_estimate_ratio=1.5).parse(request, random.Random(0))

    assert seen.prompt_tokens == 480.0
    assert len(seen.block_hashes) == 20
    assert seen.tokens_per_block == 24.0


def test_two_routers_share_the_requests_and_know_only_their_own():
    cluster, _ = a_cluster(n_routers=2)
    counts = []
    cluster.plan(3.9, lambda: counts.extend(r.fleet.n_in_flight for r in cluster.routers))
    requests = [a_prompt(at_s=0.1 * i, output=300, seed=i) for i in range(30)]
    cluster.run(Arrivals(*requests), 30)

    assert sum(counts) == 30
    assert 5 < counts[0] < 25
    assert all(r.fleet.n_in_flight == 0 for r in cluster.routers)


def test_the_same_seed_gives_the_same_run():
    requests = [a_prompt(at_s=0.05 * i, tokens=100 + 37 * i, seed=i) for i in range(40)]
    runs = [a_cluster()[0].run(Arrivals(*requests), 40) for _ in range(2)]

    assert [r.ttft_s for r in runs[0]] == [r.ttft_s for r in runs[1]]
