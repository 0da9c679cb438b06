"""What is told of a gain is true as often as it says, and where it cannot be told that is said."""

from __future__ import annotations

import numpy as np
import pytest

from lodestar_extproc.gain.compared import MIN_COMPARED, Compared, ComparedRequests

SPEED_S = {"fast": 0.1, "slow": 0.4}


def a_day(rng, n=600, *, bias=None, other=lambda rng: "slow", made=lambda rng: "fast", noise=0.4):
    """Requests of a load that swells and ebbs; the mean each policy really gives, and the gain."""
    bias = bias or {"fast": 1.0, "slow": 1.0}
    compared = ComparedRequests()
    load, made_s, other_s = 1.0, [], []
    for _ in range(n):
        load = 1.0 + 0.9 * (load - 1.0) + 0.1 * rng.standard_normal()
        served, instead = made(rng), other(rng)
        work = abs(load) * rng.uniform(0.5, 1.5)
        true_s = {name: work * SPEED_S[name] for name in SPEED_S}
        observed_s = true_s[served] * rng.lognormal(-(noise**2) / 2, noise)
        made_s.append(observed_s)
        other_s.append(true_s[instead])
        said_s = {name: bias[name] * true_s[name] for name in SPEED_S}
        compared.add(Compared(served, instead, observed_s, said_s[served], said_s[instead]))
    return compared.gain("other", "shadow"), np.mean(made_s), np.mean(other_s)


def mostly(name, share=0.8):
    other = "slow" if name == "fast" else "fast"
    return lambda rng: name if rng.random() < share else other


@pytest.mark.parametrize(
    "bias", [{"fast": 1.0, "slow": 1.0}, {"fast": 0.6, "slow": 1.7}], ids=["right", "biased"]
)
def test_the_interval_holds_the_truth_as_often_as_it_says(bias):
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        gain, made_s, other_s = a_day(rng, bias=bias, other=mostly("slow"), made=mostly("fast"))
        held += gain.low <= made_s / other_s <= gain.high

    # 95 % is promised; a bound of three standard errors below it.
    assert held >= 0.95 * 200 - 3 * (200 * 0.95 * 0.05) ** 0.5


def test_a_policy_that_is_worse_is_said_to_be_and_one_that_is_better_too():
    rng = np.random.default_rng(2)
    worse, *_ = a_day(rng, other=mostly("slow"), made=mostly("fast"))
    better, *_ = a_day(rng, other=mostly("fast"), made=mostly("slow"))

    assert worse.high < 1.0
    assert "the decisions made are" in worse.verdict
    assert "faster" in worse.verdict
    assert better.low > 1.0
    assert "slower" in better.verdict


def test_policies_of_equal_worth_are_not_told_apart_more_often_than_by_chance():
    rng = np.random.default_rng(3)
    coin = mostly("fast", 0.5)
    verdicts = [a_day(rng, other=coin, made=coin)[0].verdict for _ in range(100)]

    assert sum("no difference" in verdict for verdict in verdicts) >= 95 - 3 * 2.2


def test_what_cannot_be_told_is_said_with_the_reason():
    rng = np.random.default_rng(4)
    few, *_ = a_day(rng, n=MIN_COMPARED - 1)
    alike, *_ = a_day(rng, other=lambda _: "fast", made=lambda _: "fast")
    unserved, *_ = a_day(rng, other=lambda _: "slow", made=lambda _: "fast")
    nothing = ComparedRequests().gain("other", "fallback")

    assert few.verdict == "cannot tell: 199 requests were compared, and it takes 200"
    assert "both chose alike but for 0 requests" in alike.verdict
    assert alike.agreement_ratio == 1.0
    assert "too few requests went to slow to know its speed" in unserved.verdict
    assert "cannot tell: 0 requests were compared" in nothing.verdict
    assert all(gain.ratio is None for gain in (few, alike, unserved, nothing))


def test_only_the_last_requests_count():
    compared = ComparedRequests()
    for i in range(5000):
        served = "fast" if i % 2 else "slow"
        compared.add(Compared(served, "fast", 1.0 if i < 2500 else 0.2, 0.2, 0.2))

    assert compared.gain("p", "shadow").requests == 2000
    assert compared.gain("p", "shadow").made_s == pytest.approx(0.2)
