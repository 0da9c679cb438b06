"""Frames: what replicas tell each other adds up to what one that saw everything would know."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_prompt
from lodestar_extproc.completion import Outcome
from lodestar_extproc.features import N_ENGINE, N_FEATURES
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame
from lodestar_extproc.sharing.outbox import LEARNED_EVERY_S, MAX_EVENTS, VERSION
from lodestar_extproc.sharing.told_sums import MAX_ASKED, HeardSums, ToldSums
from sharing_routers import SharingRouter, exchange

FRAME_S = 0.03


def replicas(n: int = 2, **settings) -> list[SharingRouter]:
    made = [SharingRouter(i + 1, **settings) for i in range(n)]
    exchange(made, 0.0)
    exchange(made, FRAME_S)
    return made


def columns(replica: SharingRouter, at_s: float) -> np.ndarray:
    snapshot = replica.router.fleet.everything(at_s)
    rows = (
        snapshot.prefill_requests,
        snapshot.prefill_uncached_tokens,
        snapshot.prefill_prompt_tokens,
        snapshot.prefill_pairs,
        snapshot.decode_requests,
        snapshot.decode_prompt_tokens,
    )
    return np.array(rows)


def test_both_count_what_either_sent_until_it_ends():
    a, b = replicas()
    mine, yours = a.send(a_prompt(900, 1), 1.0), b.send(a_prompt(500, 2), 1.01)
    exchange([a, b], 1.02)
    assert columns(a, 1.03) == pytest.approx(columns(b, 1.03))
    assert sum(a.in_flight(1.03)) == 2

    a.first_token(mine, 1.5)
    exchange([a, b], 1.52)
    assert columns(a, 1.53) == pytest.approx(columns(b, 1.53))

    a.end(mine, 2.0)
    b.end(yours, 2.0, outcome=Outcome.FAILED, flags=("UF",))
    exchange([a, b], 2.02)
    assert not columns(a, 2.03).any()
    assert not columns(b, 2.03).any()


@pytest.mark.parametrize(("told", "counted"), [(1, 1), (5, 5), (2**31, 256), (0, 1)])
def test_answers_of_one_request_are_counted_by_all_within_a_limit(told, counted):
    a, b = replicas()
    decision = a.send(at_s=1.0, n_answers=told)
    a.first_token(decision, 1.1)
    exchange([a, b], 1.12)
    assert b.router.fleet.everything(1.2).decode_requests.sum() == counted
    a.end(decision, 1.3)
    exchange([a, b], 1.32)
    assert not columns(b, 1.4).any()


def test_what_is_a_peers_is_never_our_own():
    a, b = replicas()
    a.send(at_s=1.0)
    exchange([a, b], 1.02)

    assert (b.router.fleet.n_in_flight, b.router.n_open) == (0, 0)
    assert b.router.fleet.overcounted(100.0) == []


def test_a_prompt_that_one_placed_is_found_there_by_the_other():
    a, b = replicas()
    prompt = a_prompt(2000, 5)
    decision = a.send(prompt, 1.0)
    exchange([a, b], 1.02)
    request = decision.candidates.request
    found = b.router.fleet.match(request, b.router.fleet.endpoints).tokens

    assert found.argmax() == decision.chosen
    assert found.max() > 1900


def test_a_prompt_that_never_reached_its_engine_is_forgotten_by_the_other_too():
    a, b = replicas()
    decision = a.send(a_prompt(2000, 5), 1.0)
    exchange([a, b], 1.02)
    a.end(decision, 1.1, outcome=Outcome.FAILED, flags=("UF",), served=None)
    exchange([a, b], 1.12)

    assert not b.router.fleet.match(
        decision.candidates.request, b.router.fleet.endpoints
    ).tokens.any()


def test_sent_and_over_within_one_frame_leaves_the_prompt_and_the_demand():
    a, b = replicas()
    decision = a.send(a_prompt(2000, 5), 1.0)
    a.first_token(decision, 1.01)
    a.end(decision, 1.015)
    exchange([a, b], 1.02)

    assert not columns(b, 1.03).any()
    assert b.router.fleet.match(decision.candidates.request, b.router.fleet.endpoints).tokens.any()


def test_what_was_lost_is_asked_for_again():
    a, b = replicas()
    first = a.send(a_prompt(900, 1), 1.0)
    exchange([a, b], 1.02, lost=lambda: True)
    a.send(a_prompt(900, 2), 1.03)
    exchange([a, b], 1.05)
    assert b.shared.inbox.incomplete == (a.origin,)
    assert b.shared.inbox.n_lost == 1

    for step in range(1, 12):
        exchange([a, b], 1.05 + step * FRAME_S)
    assert b.shared.inbox.incomplete == ()
    assert columns(a, 2.0) == pytest.approx(columns(b, 2.0))
    assert sum(b.in_flight(2.0)) == 2

    a.end(first, 2.1)
    exchange([a, b], 2.12)
    assert sum(b.in_flight(2.13)) == 1


def test_a_first_token_in_a_lost_frame_is_told_again_with_all_that_is_in_flight():
    a, b = replicas()
    decision = a.send(at_s=1.0)
    exchange([a, b], 1.02)
    a.first_token(decision, 1.1)
    exchange([a, b], 1.12, lost=lambda: True)
    for step in range(1, 12):
        exchange([a, b], 1.12 + step * FRAME_S)

    assert columns(b, 2.0) == pytest.approx(columns(a, 2.0))
    assert b.router.fleet.everything(2.0).decode_requests.sum() == 1


def test_a_frame_that_comes_twice_or_late_counts_once():
    a, b = replicas()
    a.send(at_s=1.0)
    early = a.shared.frame(1.02)
    a.send(a_prompt(10, 3), 1.03)
    late = a.shared.frame(1.05)
    for frame in (early, early, late, early, late):
        b.shared.receive(frame, 1.06)

    assert sum(b.in_flight(1.1)) == 2
    assert b.shared.inbox.incomplete == ()


def test_three_frames_of_silence_end_a_replicas_load_and_not_its_prompts():
    a, b = replicas()
    decision = a.send(a_prompt(2000, 5), 1.0)
    exchange([a, b], 1.02)
    b.shared.inbox.age(1.02 + 3 * FRAME_S - 0.001)
    assert sum(b.in_flight(1.1)) == 1

    b.shared.inbox.age(1.02 + 3 * FRAME_S + 0.001)
    assert sum(b.in_flight(1.2)) == 0
    assert b.shared.inbox.peers == frozenset()
    assert b.router.fleet.match(decision.candidates.request, b.router.fleet.endpoints).tokens.any()


def test_a_replica_that_was_paused_is_whole_again_soon_after():
    a, b = replicas()
    a.send(at_s=1.0)
    exchange([a, b], 1.02)
    b.shared.inbox.age(5.0)
    assert sum(b.in_flight(5.0)) == 0

    for step in range(12):
        exchange([a, b], 5.0 + step * FRAME_S)
    assert sum(b.in_flight(6.0)) == 1


@pytest.mark.parametrize("skew_s", [-1e6, 3600.0, 1e9])
def test_clocks_that_differ_change_nothing(skew_s):
    a, b = replicas()
    decision = a.send(at_s=1.0)
    a.first_token(decision, 1.01)
    b.shared.receive(Frame.FromString(a.shared.frame(1.04).SerializeToString()), skew_s)

    told = b.router.fleet.everything(skew_s)
    ours = a.router.fleet.everything(1.04)
    assert told.decode_context_tokens == pytest.approx(ours.decode_context_tokens, rel=1e-6)


def test_an_endpoint_that_one_finds_dead_is_out_for_both_and_told_once():
    a, b = replicas()
    address = a.router.fleet.endpoints[0].address
    a.router.fleet.health.failed(address, 1.0)
    exchange([a, b], 1.02)
    assert b.router.fleet.health.state(address, 1.03) is HealthState.EJECTED

    assert not b.shared.frame(1.05).failing
    assert not a.shared.frame(1.05).failing


def test_more_than_a_frame_holds_is_told_as_a_whole_in_bounded_memory():
    a, b = replicas()
    for i in range(MAX_EVENTS // 2 + 10):
        a.end(a.send(b"x" * 64, 1.0 + i * 1e-6), 1.0 + i * 1e-6)
    a.send(a_prompt(100, 1), 1.5)
    frame = a.shared.frame(1.51)

    assert frame.whole
    assert len(frame.sent) + len(frame.ended) < MAX_EVENTS
    b.shared.receive(frame, 1.52)
    assert sum(b.in_flight(1.52)) == 1


def learn_from(replica: SharingRouter, n: int, seed: int) -> None:
    rng = random.Random(seed)
    for i in range(n):
        at_s = 10.0 + i * 0.01
        decision = replica.send(a_prompt(rng.randint(50, 3000), seed * 1000 + i), at_s)
        ttft_s = 0.02 + 1e-4 * decision.candidates.uncached_on(decision.chosen)
        replica.first_token(decision, at_s + ttft_s)
        replica.end(decision, at_s + ttft_s)


def test_what_one_learned_the_other_knows():
    a, b = replicas()
    learn_from(a, 60, 1)
    exchange([a, b], 20.0 + LEARNED_EVERY_S)
    of_a, of_b = (each.router.learner.predictor for each in (a, b))

    assert b.router.learner.status().n_samples == a.router.learner.status().n_samples == 60
    assert set(of_a.endpoints) == set(of_b.endpoints)
    # One sum is as old as its youngest sample: 60 samples at a forgetting of 0.9995.
    assert of_b.fleet.gram == pytest.approx(of_a.fleet.gram, rel=0.04)
    for endpoint in a.router.fleet.endpoints:
        assert of_b.coefficients(endpoint) == pytest.approx(of_a.coefficients(endpoint), abs=0.02)


def learned_by(replica: SharingRouter) -> int:
    return replica.router.learner.status().n_samples


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_sample_is_learned_once_by_all_whatever_frames_are_lost_or_come_twice(seed):
    rng = random.Random(seed)
    three = replicas(3)
    for step in range(200):
        if step % 10 == 0:
            learn_from(rng.choice(three), rng.randint(1, 3), 1000 * seed + step)
        lost = 1.0 if 100 < step < 140 else 1 / 3  # for a while all of them
        for _ in range(2):
            exchange(three, 20.0 + step * 0.2, lost=lambda ratio=lost: rng.random() < ratio)
    for step in range(12):
        exchange(three, 70.0 + step * 0.2)

    n_learned = [learned_by(replica) for replica in three]
    assert n_learned[0] > 20
    assert len(set(n_learned)) == 1
    grams = [replica.router.learner.predictor.fleet.gram for replica in three]
    assert grams[1] == pytest.approx(grams[0], rel=0.05)
    assert grams[2] == pytest.approx(grams[0], rel=0.05)


def test_who_was_cut_off_learns_afterwards_what_it_missed_once():
    three = replicas(3)
    learn_from(three[0], 5, 1)
    exchange(three, 20.0)
    for step in range(30):
        learn_from(three[0], 1, 100 + step)
        exchange(three[:2], 21.0 + step)
        three[2].shared.inbox.age(21.0 + step)
    assert (learned_by(three[1]), learned_by(three[2])) == (35, 5)

    for step in range(6):
        exchange(three, 60.0 + step * 0.3)
    assert [learned_by(replica) for replica in three] == [35, 35, 35]


def test_a_newcomer_learns_nothing_twice():
    old = replicas(2)
    for step in range(80):
        exchange(old, 1.0 + step * FRAME_S)
    learn_from(old[0], 20, 1)
    exchange(old, 20.0)
    learn_from(old[0], 3, 2)  # told to nobody yet
    learn_from(old[1], 4, 3)
    three = [*old, SharingRouter(7)]
    for step in range(10):
        exchange(three, 20.3 + step * 0.3)

    assert [learned_by(replica) for replica in three] == [27, 27, 27]


def test_sums_that_nobody_keeps_any_more_are_not_asked_for_again():
    told, heard = ToldSums(), HeardSums(0)
    heard.told(highest=10, kept_from=4)
    assert heard.missing == [4, 5, 6, 7, 8, 9, 10]
    assert heard.take(5)
    assert not heard.take(5)
    assert not heard.take(3)
    heard.told(highest=2**60, kept_from=6)
    assert heard.missing[:2] == [6, 7]
    assert len(heard.missing) == MAX_ASKED
    told.ask(range(10**9))
    told.write(frame := Frame(), new=True)
    assert (len(frame.learned), frame.learned_number, frame.learned_kept_from) == (0, 0, 1)


def test_two_that_share_learn_what_one_that_saw_everything_learns():
    """But for what is forgotten within one sum: at 0.9995 a sample, of 30 samples, 1.5 % at most."""
    a, b = replicas()
    learn_from(a, 30, 1)
    learn_from(b, 30, 2)
    exchange([a, b], 20.0 + LEARNED_EVERY_S)
    both = [each.router.learner.predictor.fleet for each in (a, b)]

    assert both[0].n_samples == pytest.approx(both[1].n_samples, rel=0.02)
    assert both[0].gram == pytest.approx(both[1].gram, rel=0.02)


@settings(max_examples=200)
@given(data=st.binary(max_size=400))
def test_garbage_never_raises_and_counts_nothing(data):
    (a,) = replicas(1)
    frame = Frame()
    try:
        frame.ParseFromString(data)
    except Exception:  # noqa: BLE001  (protobuf's own)
        return
    frame.version, frame.origin, frame.number = VERSION, "x", 1
    a.shared.receive(frame, 1.0)
    assert np.isfinite(columns(a, 1.0)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 1e300])
def test_numbers_that_nobody_measured_are_passed_over(bad):
    (a,) = replicas(1)
    address = a.router.fleet.endpoints[0].address
    frame = Frame(version=VERSION, origin="x", number=1, interval_ms=30)
    frame.sent.add(key="k1", address=address, prompt_tokens=bad, uncached_tokens=10)
    frame.sent.add(key="k2", address=address, prompt_tokens=10, uncached_tokens=bad)
    frame.sent.add(key="k3", address=address, prompt_tokens=10, uncached_tokens=10, age_s=bad)
    frame.learned.add(
        address=address,
        accelerator="default",
        n_samples=1,
        gram=[bad] * N_ENGINE**2,
        moment=[0.0] * N_ENGINE,
        lowest=[0.0] * N_FEATURES,
        highest=[1.0] * N_FEATURES,
    )
    assert a.shared.receive(frame, 5.0)

    assert sum(a.in_flight(5.0)) == 1
    assert a.router.learner.status().n_samples == 0
    a.send(at_s=6.0)


def test_a_frame_of_a_later_version_is_refused_and_one_with_new_fields_is_read():
    (a,) = replicas(1)
    address = a.router.fleet.endpoints[0].address
    later = Frame(version=VERSION + 1, origin="x", number=1)
    assert not a.shared.receive(later, 1.0)

    frame = Frame(version=VERSION, origin="x", number=1, interval_ms=30)
    frame.sent.add(key="k", address=address, prompt_tokens=10, uncached_tokens=10)
    unknown_field = b"\xba\x3e\x03new"  # field 999, of three bytes
    assert a.shared.receive(Frame.FromString(frame.SerializeToString() + unknown_field), 1.0)
    assert sum(a.in_flight(1.0)) == 1


@pytest.mark.parametrize("seed", [3])
def test_in_flight_sums_are_right_after_any_loss(seed):
    """Twenty seconds of requests at three replicas, a third of the frames lost."""
    rng = random.Random(seed)
    three, open_now = replicas(3), []
    for step in range(600):
        at_s = 1.0 + step * FRAME_S
        busy = [replica for replica in three if rng.random() < 0.5]
        open_now += [(replica, replica.send(a_prompt(200, step), at_s)) for replica in busy]
        rng.shuffle(open_now)
        while len(open_now) > 20:
            replica, decision = open_now.pop()
            replica.first_token(decision, at_s)
            replica.end(decision, at_s)
        exchange(three, at_s, lost=lambda: rng.random() < 1 / 3)
        for replica in three:
            replica.shared.inbox.age(at_s)
    for step in range(40):
        exchange(three, 20.0 + step * FRAME_S)

    for replica in three:
        assert sum(replica.in_flight(22.0)) == len(open_now)


def test_a_new_process_knows_at_once_what_the_others_learned_and_what_caches_hold():
    old = replicas(2)
    for step in range(80):  # until they no longer hope for an answer themselves
        exchange(old, 1.0 + step * FRAME_S)
    learn_from(old[0], 60, 1)
    exchange(old, 20.0)
    new = SharingRouter(7)
    for step in range(1, 4):
        exchange([*old, new], 20.0 + step * FRAME_S)

    assert new.router.learner.status().n_samples == 60
    request = old[0].send(a_prompt(500, 1000), 21.0).candidates.request
    known = [
        each.router.fleet.match(request, each.router.fleet.endpoints).tokens
        for each in (old[1], new)
    ]
    assert known[0].max() > 0
    assert known[1].tolist() == known[0].tolist()


def test_only_one_answers_a_new_process_and_only_once():
    old = replicas(3)
    for step in range(80):
        exchange(old, 1.0 + step * FRAME_S)
    learn_from(old[1], 5, 1)
    exchange(old, 20.0)
    new, answers = SharingRouter(7), []
    for step in range(1, 8):
        at_s = 20.0 + step * FRAME_S
        frames = [each.shared.frame(at_s) for each in (*old, new)]
        answers += [frame.origin for frame in frames if frame.cached]
        for frame in frames:
            for receiver in (*old, new):
                receiver.shared.receive(frame, at_s)

    assert answers == [min(each.origin for each in old)]


@pytest.mark.parametrize("told", [b"", b"[]", b"{}", b"nonsense", b'{"n_learned": 1e9}', b"7"])
def test_what_was_learned_here_is_not_overwritten_by_less_or_by_nonsense(told):
    new = SharingRouter(7)
    learn_from(new, 5, 2)
    before = new.router.learner.status()
    new.shared.receive(Frame(version=VERSION, origin="x", number=1, learner=told), 21.0)

    assert new.router.learner.status() == before
