"""Endpoints and requests coming and going in any order, beside a plain model of what is true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from builders import a_prompt, a_request, an_endpoint, live_settings
from in_any_order import runs
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.fleet.peer_requests import PeerRequest

NUMBERS = range(1, 5)
ADDRESSES = [an_endpoint(number).address for number in NUMBERS]
STRANGER = "10.9.9.9:8000"
ANYWHERE = st.sampled_from([*ADDRESSES, STRANGER])
PLACES = st.sampled_from([0, 1, 0, 1, 2, 3])
"""Which of the members; beyond them it is a stranger."""
SERVED = st.sampled_from([None, 0, 1, 0, 1, 3])
REQUESTS = [
    a_request(a_prompt(tokens, seed), prompt_tokens=float(tokens))
    for tokens, seed in ((64, 1), (256, 2), (2000, 3))
]
REQUESTS.append(a_request(a_prompt(2000, 3) + a_prompt(256, 4), prompt_tokens=2256.0))
PROMPTS = st.sampled_from([None, 1, 2, 3])
CAPACITY_TOKENS = 3000.0
"""Small, so that caches overflow."""


@dataclass
class Known:
    """What the model holds of one request in flight."""

    address: str
    prompt_tokens: float
    uncached_tokens: float
    expected_at_s: list[float]
    decodes: bool = False


class FleetMachine(RuleBasedStateMachine):
    """Everything that may be told to a fleet, of endpoints and requests known and unknown."""

    keys = Bundle("keys")

    def __init__(self):
        super().__init__()
        self.at_s = 1.0
        self.members = ADDRESSES[:2]
        self.fleet = Fleet(live_settings(frozen_after_s=2.0), map(self._endpoint, (1, 2)))
        self.known: dict[str, Known] = {}
        self.peers: dict[tuple[str, str], Known] = {}
        self.n = 0

    def _endpoint(self, number: int, *, caches: bool = True):
        return an_endpoint(number, kv_capacity_tokens=CAPACITY_TOKENS, prefix_caching=caches)

    def _at(self, place: int | None) -> str | None:
        if place is None:
            return None
        return self.members[place] if place < len(self.members) else STRANGER

    # -- members --------------------------------------------------------------------------------

    @rule(
        numbers=st.sampled_from([{1, 2}, {1, 2, 3}, {2, 3, 4}, {1, 4}, {3}, set()]),
        caches=st.booleans(),
    )
    def members_change(self, numbers, caches):
        before = set(self.members)
        endpoints = [self._endpoint(n, caches=caches or n > 2) for n in sorted(numbers)]
        joined, left = self.fleet.set_endpoints(endpoints)
        self.members = [e.address for e in endpoints]
        assert {e.address for e in joined} == set(self.members) - before
        assert set(left) == before - set(self.members)
        for table in (self.known, self.peers):
            for key in [k for k, each in table.items() if each.address not in self.members]:
                del table[key]

    # -- requests -------------------------------------------------------------------------------

    @rule(
        target=keys,
        place=PLACES,
        request=st.sampled_from(REQUESTS),
        ratio=st.sampled_from([0.0, 0.5, 1.0]),
        expected_in_s=st.sampled_from([None, 0.0, 1.0]),
    )
    def dispatched(self, place, request, ratio, expected_in_s):
        self.n += 1
        address = self._at(place)
        key, uncached_tokens = f"pool.{self.n}", ratio * request.prompt_tokens
        expected_at_s = None if expected_in_s is None else self.at_s + expected_in_s
        for _ in range(2):  # the second says nothing new
            self.fleet.dispatch(
                key,
                request,
                address,
                uncached_tokens=uncached_tokens,
                at_s=self.at_s,
                expected_first_token_at_s=expected_at_s,
            )
        if address in self.members:
            expected = [] if expected_at_s is None else [expected_at_s]
            self.known[key] = Known(address, request.prompt_tokens, uncached_tokens, expected)
        return key

    @rule(key=keys, served=SERVED, watched=st.booleans())
    def first_token(self, key, served, watched):
        served = self._at(served)
        self.fleet.first_token(key, self.at_s, served, watched=watched)
        self._begins(self.known.get(key), served)

    def _begins(self, known: Known | None, served: str | None) -> None:
        if known is not None and not known.decodes:
            known.decodes = True
            known.address = served if served in self.members else known.address

    @rule(key=keys)
    def progressed(self, key):
        self.fleet.stalls.progressed(key, self.at_s)

    @rule(key=keys, in_s=st.sampled_from([0.0, 2.0]))
    def goes_on(self, key, in_s):
        self.fleet.goes_on(key, self.at_s, self.at_s + in_s)
        if key in self.known:
            self.known[key].expected_at_s.append(self.at_s + in_s)

    @rule(
        key=keys,
        served=SERVED,
        computed=st.booleans(),
        cached_ratio=st.sampled_from([None, 0.0, 0.7, 1.0]),
        whole=st.booleans(),
    )
    def released(self, key, served, computed, cached_ratio, whole):
        self.fleet.release(
            key,
            self.at_s,
            served=self._at(served),
            prompt_computed=computed,
            cached_ratio=cached_ratio,
            whole=whole,
        )
        self.known.pop(key, None)

    # -- requests of peers ----------------------------------------------------------------------

    @rule(
        target=keys,
        peer=st.sampled_from("ab"),
        place=PLACES,
        request=st.sampled_from(REQUESTS),
        decodes=st.booleans(),
    )
    def sent_by_a_peer(self, peer, place, request, decodes):
        address = self._at(place)
        self.n += 1
        key, first_s = f"theirs.{self.n}", self.at_s if decodes else None
        told = PeerRequest(key, request, address, request.prompt_tokens, self.at_s, first_s)
        counts = self.fleet.peers.sent(peer, told)
        assert counts is (address in self.members)
        assert not self.fleet.peers.sent(peer, told), "told twice"
        if not counts:
            return multiple()
        tokens = request.prompt_tokens
        self.peers[peer, key] = Known(address, tokens, tokens, [], decodes)
        return key

    @rule(peer=st.sampled_from("ab"), key=keys, served=SERVED)
    def first_token_at_a_peer(self, peer, key, served):
        served = self._at(served)
        self.fleet.peers.first_token(peer, key, self.at_s, served)
        self._begins(self.peers.get((peer, key)), served)

    @rule(peer=st.sampled_from("ab"), key=keys, served=SERVED, computed=st.booleans())
    def ended_at_a_peer(self, peer, key, served, computed):
        served = self._at(served)
        self.fleet.peers.ended(peer, key, self.at_s, served=served, prompt_computed=computed)
        self.peers.pop((peer, key), None)

    @rule(peer=st.sampled_from("ab"))
    def peer_dropped(self, peer):
        self.fleet.peers.drop(peer)
        self.peers = {k: known for k, known in self.peers.items() if k[0] != peer}

    # -- what is observed of endpoints -----------------------------------------------------------

    @rule(address=ANYWHERE, healthy=st.booleans())
    def probed(self, address, healthy):
        self.fleet.record_probe(address, healthy, self.at_s)

    @rule(
        address=ANYWHERE,
        running=st.sampled_from([None, 0.0, 3.0]),
        generated=st.sampled_from([None, 0.0, 10.0, 1e6]),
        capacity=st.sampled_from([None, 16.0, 1000.0]),
        caches=st.sampled_from([None, True, False]),
        awake=st.sampled_from([None, 0.0, 1.0]),
    )
    def scraped(self, address, running, generated, capacity, caches, awake):
        metrics = EndpointMetrics(
            running_requests=running,
            waiting_requests=running,
            generation_tokens=generated,
            kv_capacity_tokens=capacity,
            prefix_caching=caches,
            awake=awake,
        )
        self.fleet.record_metrics(address, metrics, self.at_s)

    @rule(
        address=ANYWHERE,
        said=st.sampled_from(["refused", "failed", "errored", "succeeded", "pardoned"]),
        prompt=PROMPTS,
        more=st.booleans(),
    )
    def judged(self, address, said, prompt, more):
        health, at_s = self.fleet.health, self.at_s
        match said:
            case "refused":
                health.refused(address, at_s, prompt, retry_after_s=1.0 if more else None)
            case "failed":
                health.failed(address, at_s, prompt, in_mid_answer=more)
            case "errored":
                health.errored(address, at_s, prompt)
            case "succeeded":
                health.succeeded(address, at_s, prompt)
            case "pardoned":
                health.pardon(address)

    # -- what is asked --------------------------------------------------------------------------

    @rule(by_s=st.sampled_from([0.0, 0.05, 1.0, 3.0, 100.0]), prompt=PROMPTS)
    def time_passes_and_a_request_asks(self, by_s, prompt):
        self.at_s += by_s
        snapshot = self.fleet.snapshot(self.at_s, prompt=prompt)
        for known in self.known.values():
            known.decodes |= any(at_s <= self.at_s for at_s in known.expected_at_s)
        asked = [endpoint.address for endpoint in snapshot.endpoints]
        assert set(asked) <= set(self.members)
        assert bool(asked) is bool(self.members)
        up = {HealthState.HEALTHY, HealthState.PROBATION}
        states = {a: self.fleet.health.state(a, self.at_s) for a in self.members}
        if any(state is HealthState.HEALTHY for state in states.values()):
            assert all(states[address] in up for address in asked)
        over = self.fleet.overcounted(self.at_s)
        assert set(over) <= self.known.keys()
        assert len(over) == len(set(over))

    # -- what must hold --------------------------------------------------------------------------

    @invariant()
    def counts_are_the_truth(self):
        everything = self.fleet.everything(self.at_s)
        assert [e.address for e in everything.endpoints] == self.members
        assert self.fleet.n_in_flight == len(self.known)
        assert len(self.fleet.peers) == len(self.peers)
        for column, address in enumerate(self.members):
            there = [k for k in self._all() if k.address == address]
            prefills = [k for k in there if not k.decodes]
            assert everything.prefill_requests[column] == len(prefills)
            assert everything.decode_requests[column] == len(there) - len(prefills)
            tokens = sum(k.uncached_tokens for k in prefills)
            assert everything.prefill_uncached_tokens[column] == pytest.approx(tokens, abs=1e-6)
            tokens = sum(k.prompt_tokens for k in prefills)
            assert everything.prefill_prompt_tokens[column] == pytest.approx(tokens, abs=1e-6)

            pairs = sum(
                k.uncached_tokens * (k.prompt_tokens - k.uncached_tokens / 2) for k in prefills
            )
            assert everything.prefill_pairs[column] == pytest.approx(pairs, abs=1.0)
            tokens = sum(k.prompt_tokens for k in there if k.decodes)
            assert everything.decode_prompt_tokens[column] == pytest.approx(tokens, abs=1e-6)

    def _all(self) -> list[Known]:
        return [*self.known.values(), *self.peers.values()]

    @invariant()
    def nobody_is_remembered_who_left(self):
        assert self.fleet.health._records.keys() == set(self.members)
        assert self.fleet.health.all_healthy is all(
            self.fleet.health.state(address, self.at_s) is HealthState.HEALTHY
            for address in self.members
        )
        stalls = self.fleet.stalls
        assert stalls._watched.keys() <= self.known.keys()
        for table in (stalls._counters, stalls._went_on_at_s, stalls._progressed_at_s):
            assert table.keys() <= set(self.members)

    @invariant()
    def beliefs_of_caches_are_shares(self):
        for request in REQUESTS:
            tokens, ratio, sent_ratio, kept_ratio = self.fleet.match(request, self.fleet.endpoints)
            assert np.all((tokens >= 0) & (tokens <= request.prompt_tokens))
            assert np.all(
                (ratio >= 0)
                & (ratio <= kept_ratio)
                & (kept_ratio <= sent_ratio)
                & (sent_ratio <= 1)
            )

    def teardown(self):
        """All ends: what was taken and held is given back, to the last block."""
        for key in list(self.known):
            self.fleet.release(key, self.at_s)
        for peer in "ab":
            self.fleet.peers.drop(peer)
        self.known.clear()
        self.peers.clear()
        self.counts_are_the_truth()
        everything = self.fleet.everything(self.at_s)
        for name in ("prefill_pairs", "decode_prompt_tokens", "decode_started_s"):
            assert not getattr(everything, name).any(), name
        assert not list(held_runs(self.fleet._caches._tree.root))
        for index in self.fleet._caches._indexes.values():
            if index is not None:
                assert len(index) <= max(0, index._capacity_blocks - index._n_aside)


def held_runs(run):
    """Runs of blocks below *run* that some request holds."""
    for child in run.children.values():
        if child.holders:
            yield child
        yield from held_runs(child)


class TestFleetInAnyOrder(FleetMachine.TestCase):
    settings = runs(100, 30)


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestFleetInAnyOrderForLong(FleetMachine.TestCase):
    settings = runs(1500, 60)
