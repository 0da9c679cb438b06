"""An hour of minutes is kept, each closed with what the pool was then."""

from __future__ import annotations

import tracemalloc

import pytest

from collector import only_when_told
from lodestar_extproc.admin.history import MINUTES, PoolHistory
from lodestar_extproc.gain.compared import Gain
from metrics_world import World


class Hour:
    def __init__(self, **settings) -> None:
        self.history = PoolHistory(lambda: self.world.now_s if hasattr(self, "world") else 100.0)
        self.world = World(listeners=[self.history], **settings)

    def pass_a_minute(self, n: int = 0, ttft_s: float = 0.5) -> None:
        self.world.serve(n, ttft_s=ttft_s)
        self.world.now_s += 60.0
        gain = Gain("least_request", "fallback", 300, 0.5, 1.0, 2.0, 0.5, 0.4, 0.6)
        self.history.look(self.world.view(), lambda: [gain])


def test_a_minute_has_quantiles_load_hits_trust_and_gain():
    hour = Hour(burn_in_samples=1)
    hour.pass_a_minute(20, ttft_s=0.5)
    hour.pass_a_minute(20, ttft_s=0.5)
    minute = hour.history.minutes()[-1]

    assert minute["observed"] == {"p50_s": 0.5, "p95_s": 0.5}
    assert minute["predicted"]["p50_s"] > 0
    assert minute["requests_per_s"] == pytest.approx(20 / 60)
    assert minute["gain_ratio"] == 0.5
    assert minute["state"] in ("model", "untrusted")
    assert sum(e["requests"] for e in minute["endpoints"].values()) == 20
    assert all(0.0 <= e["hit_ratio"] <= 1.0 for e in minute["endpoints"].values())


def test_a_quiet_minute_is_there_and_says_that_nothing_is_known():
    hour = Hour(policy="random")
    hour.pass_a_minute()
    (minute,) = hour.history.minutes()

    assert minute["observed"] == {"p50_s": None, "p95_s": None}
    assert minute["requests_per_s"] == 0.0


def test_no_more_than_an_hour_is_kept_oldest_first():
    hour = Hour(policy="random")
    for _ in range(MINUTES + 5):
        hour.pass_a_minute()
    times = [minute["time_s"] for minute in hour.history.minutes()]

    assert len(times) == MINUTES
    assert times == sorted(times)


def test_an_hour_of_a_large_fleet_is_small():
    hour = Hour(n=500, policy="random")
    with only_when_told():
        tracemalloc.start()
        try:
            for _ in range(MINUTES):
                hour.pass_a_minute()
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert len(hour.history.minutes()[0]["endpoints"]) == 500
    assert held_bytes < 2 * 2**20


def test_within_a_minute_nothing_is_closed():
    hour = Hour(policy="random")
    hour.world.now_s = 120.0
    hour.history.look(hour.world.view(), list)
    hour.history.look(hour.world.view(), list)

    assert len(hour.history.minutes()) <= 1
