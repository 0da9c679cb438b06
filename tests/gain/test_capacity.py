"""What a pool can take within its bound on TTFT, by what was predicted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lodestar_extproc.gain.capacity import PredictedRequest, capacity, endpoints_worth
from lodestar_extproc.gain.capacity_watch import MIN_REQUESTS, CapacityWatch
from metrics_world import World

N = 400


def requests(
    n_endpoints: float = 4, service_s: float = 0.2, slo_s: float = 1.0, queue_s: float = 0.0
):
    one = PredictedRequest(0.0, n_endpoints, service_s, service_s + 0.02 + queue_s, slo_s)
    return [one._replace(at_s=float(i), service_s=service_s * (0.5 + i % 2)) for i in range(N)]


def taken(*n_endpoints: float, lasted_s: float = 100.0, **kinds: float) -> float:
    found = capacity(requests(*n_endpoints, **kinds), lasted_s)
    assert found is not None
    return found.capacity_per_s


def test_endpoints_are_never_asked_to_compute_more_than_all_the_time():
    assert taken(slo_s=100.0) < 4 / 0.2


def test_a_tight_bound_leaves_less_than_a_loose_one():
    assert taken(slo_s=0.4) < taken(slo_s=1.0) < taken(slo_s=5.0)


def test_more_endpoints_take_more_than_in_proportion():
    assert taken(8) > 2 * taken(4)


def test_an_endpoint_of_twice_the_speed_is_worth_two():
    speeds = np.array([0.1, 0.05, 0.2])

    assert endpoints_worth(0, 0.5, speeds, slo_s=5.0) == pytest.approx(1 + 2 + 0.5)


def test_an_endpoint_that_would_be_late_alone_is_worth_nothing():
    speeds = np.array([0.1, 0.05, 0.2])

    assert endpoints_worth(0, 0.5, speeds, slo_s=0.8) == pytest.approx(1 + 2)


def test_full_caches_leave_no_room_though_there_is_time():
    half = [each._replace(memory_ratio=0.6) for each in requests(slo_s=100.0)]
    found = capacity(half, 1000.0)  # hardly anything to compute

    assert found.capacity_per_s == pytest.approx(found.offered_per_s * 0.9 / 0.6)


def test_longer_prompts_leave_room_for_fewer():
    assert taken(service_s=0.4) < taken(service_s=0.2)


def test_what_the_pool_takes_does_not_hang_on_how_much_it_gets():
    assert taken(lasted_s=50.0) == pytest.approx(taken(lasted_s=200.0), rel=1e-6)


def test_a_crowded_pool_still_says_what_it_takes():
    crowded = capacity(requests(queue_s=20.0), 10.0)

    assert crowded is not None
    assert crowded.used_ratio > 1.0
    assert crowded.spare_per_s < 0.0


def test_a_bound_that_an_idle_pool_would_miss_has_no_capacity():
    assert capacity(requests(slo_s=0.1), 100.0) is None


@pytest.mark.parametrize("seen", [[], requests(n_endpoints=0)])
def test_nothing_is_told_of_nothing(seen):
    assert capacity(seen, 100.0) is None


class Watched(World):
    """A world whose capacity is watched."""

    def __init__(self, **settings) -> None:
        self.watch = CapacityWatch(lambda: self.router.settings, lambda: self.now_s)
        super().__init__(listeners=[self.watch], **settings)

    def told(self):
        return self.watch.capacity()


def test_a_pool_at_work_tells_what_it_is_offered():
    world = Watched(burn_in_samples=1, ttft_slo_s=3.0)
    world.serve(100, ttft_s=0.2)  # one a second

    assert world.told().offered_per_s == pytest.approx(1.0, rel=0.05)
    assert world.told().capacity_per_s > 0


def test_without_a_bound_nothing_is_told():
    world = Watched(burn_in_samples=1)
    world.serve(100)

    assert world.told() is None


def test_a_bound_of_the_request_itself_counts_before_the_pools():
    world = Watched(burn_in_samples=1)
    world.serve(100, ttft_slo_s=3.0)

    assert world.told() is not None


def test_too_few_requests_tell_nothing():
    world = Watched(burn_in_samples=1, ttft_slo_s=3.0)
    world.serve(MIN_REQUESTS - 1)

    assert world.told() is None


def test_what_is_long_past_is_forgotten():
    world = Watched(burn_in_samples=1, ttft_slo_s=3.0)
    world.serve(100)
    world.now_s += 1000.0

    assert world.told() is None


def test_what_is_told_are_plain_numbers():
    found = capacity(requests(), 100.0)

    assert {type(value) for value in dataclasses.astuple(found)} == {float}
