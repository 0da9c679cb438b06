"""Fleets whose TTFT follows a known law, and a worked decision."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from builders import a_request
from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import SNAPSHOT_COLUMNS, Endpoint, FleetSnapshot
from lodestar_extproc.learning.sample import TrainingSample

NEVER = -np.inf
COEFFICIENTS = {
    "fast": (0.03, 0.02, 0.007, 0.001, 0.002, 0.01, 0.02, 0.0),
    "slow": (0.03, 0.16, 0.03, 0.01, 0.02, 0.08, 0.03, 0.1),
}


def a_snapshot(endpoints, at_s: float = 0.0, **columns) -> FleetSnapshot:
    """Idle endpoints, but for *columns* (a number, or a list with one for each)."""
    n = len(endpoints)
    defaults = {
        "prefill_requests": 0.0,
        "prefill_uncached_tokens": 0.0,
        "prefill_prompt_tokens": 0.0,
        "prefill_pairs": 0.0,
        "head_uncached_tokens": 0.0,
        "head_dispatched_at_s": NEVER,
        "last_first_token_at_s": NEVER,
        "decode_requests": 0.0,
        "decode_context_tokens": 0.0,
        "running_requests": np.nan,
        "waiting_requests": np.nan,
        "kv_usage_ratio": np.nan,
        "scrape_age_s": np.inf,
        "kv_capacity_tokens": np.nan,
        "token_budget": 2048.0,
    }
    arrays = {k: np.broadcast_to(np.array(v, float), n) for k, v in (defaults | columns).items()}
    return FleetSnapshot.of(at_s, tuple(endpoints), arrays)


def with_columns(snapshot: FleetSnapshot, **columns) -> FleetSnapshot:
    """The same snapshot but for *columns*."""
    known = {name: getattr(snapshot, name) for name in SNAPSHOT_COLUMNS}
    return a_snapshot(snapshot.endpoints, snapshot.at_s, **(known | columns))


def see(snapshot: FleetSnapshot, prompt_tokens: float, matched_tokens=0.0, rate_s=0.1):
    """A request of so many tokens beside every endpoint of *snapshot*."""
    n = len(snapshot)
    request = a_request(prompt_tokens=prompt_tokens)
    matched = np.broadcast_to(np.array(matched_tokens, float), n)
    return Candidates(request, snapshot, matched, matched / prompt_tokens, np.full(n, rate_s))


def worked_decision() -> Candidates:
    """Two endpoints: a half computed prompt and a good hit, or no queue, more decodes, no hit."""
    endpoints = [Endpoint("a:1", "a30"), Endpoint("b:1", "a30")]
    snapshot = a_snapshot(
        endpoints,
        at_s=100.0,
        prefill_requests=[1, 0],
        prefill_uncached_tokens=[2000, 0],
        prefill_prompt_tokens=[2600, 0],
        prefill_pairs=[2000 * (2600 - 2000 / 2), 0],
        head_uncached_tokens=[2000, 0],
        head_dispatched_at_s=[99.75, NEVER],
        last_first_token_at_s=[99.5, NEVER],
        decode_requests=[12, 30],
        decode_context_tokens=[15_000, 26_000],
        kv_capacity_tokens=42_992,
    )
    return see(snapshot, 1500.0, matched_tokens=[640, 0])


class LinearWorld:
    """Endpoints whose TTFT is linear in the engine features, times lognormal noise.

    Args:
        noise: standard deviation of log TTFT.
    """

    def __init__(self, accelerators=("slow",) * 4, seed: int = 0, noise: float = 0.1) -> None:
        self.endpoints = tuple(Endpoint(f"10.0.0.{i}:80", a) for i, a in enumerate(accelerators))
        self.rng = random.Random(seed)
        self.slow_down = dict.fromkeys((e.address for e in self.endpoints), 1.0)
        self._noise = noise
        self._at_s = 0.0

    def candidates(self) -> Candidates:
        """A request, and endpoints under random load."""
        rng, n = self.rng, len(self.endpoints)
        self._at_s += rng.expovariate(10.0)
        waiting = np.array([rng.randrange(4) for _ in range(n)])
        queued = waiting * np.array([rng.uniform(200, 3000) for _ in range(n)])
        decoding = np.array([rng.randrange(40) for _ in range(n)])
        snapshot = a_snapshot(
            self.endpoints,
            at_s=self._at_s,
            prefill_requests=waiting,
            prefill_uncached_tokens=queued,
            prefill_prompt_tokens=queued * 1.2,
            prefill_pairs=queued * 1000,
            head_uncached_tokens=queued / np.maximum(waiting, 1),
            head_dispatched_at_s=np.where(waiting > 0, self._at_s - 0.1, NEVER),
            decode_requests=decoding,
            decode_context_tokens=decoding * rng.uniform(300, 1500),
            kv_capacity_tokens=60_000,
        )
        matched = [rng.choice([0.0, 0.0, 0.6]) for _ in range(n)]
        prompt = rng.uniform(50, 6000)
        return see(snapshot, prompt, matched_tokens=np.array(matched) * prompt)

    def ttft_s(self, candidates: Candidates) -> np.ndarray:
        """The truth, without noise, [n]."""
        theta = np.array([COEFFICIENTS[e.accelerator] for e in self.endpoints])
        factor = np.array([self.slow_down[e.address] for e in self.endpoints])
        return factor * (theta * candidates.features.engine).sum(axis=1)

    def observe(self, candidates: Candidates, index: int, predicted_s=None) -> TrainingSample:
        """What comes of sending the request to the endpoint at *index*."""
        endpoint = self.endpoints[index]
        noise = self.rng.lognormvariate(0.0, self._noise)
        return TrainingSample(
            address=endpoint.address,
            accelerator=endpoint.accelerator,
            features=candidates.features.values[index],
            ttft_s=float(self.ttft_s(candidates)[index]) * noise,
            at_s=self._at_s,
            predicted_ttft_s=predicted_s,
        )

    def samples(self, n: int, among=None):
        """*n* samples of endpoints drawn at random from the indices *among*."""
        indices = range(len(self.endpoints)) if among is None else among
        for _ in range(n):
            yield self.observe(self.candidates(), self.rng.choice(list(indices)))

    def teach(self, learner, n: int, among=None) -> None:
        """Learn *n* samples, each scored by the prediction made before it."""
        indices = list(range(len(self.endpoints)) if among is None else among)
        for _ in range(n):
            candidates, index = self.candidates(), self.rng.choice(indices)
            predicted = learner.predict(candidates.features, self.endpoints)
            learner.learn(self.observe(candidates, index, float(predicted.ttft_s[index])))

    def error_ratio(self, predictor, n: int = 200, among=None) -> float:
        """Median relative error of *predictor* against the truth."""
        errors = []
        for _ in range(n):
            candidates = self.candidates()
            truth = self.ttft_s(candidates)
            predicted = predictor.predict(candidates.features, self.endpoints).ttft_s
            errors.append((abs(predicted - truth) / truth)[list(among or range(len(truth)))])
        return float(np.median(errors))


def with_endpoints(candidates: Candidates, order) -> Candidates:
    """The same candidates in another order."""
    index = list(order)
    snapshot = candidates.snapshot
    endpoints = tuple(snapshot.endpoints[i] for i in index)
    return replace(
        candidates,
        snapshot=replace(snapshot, endpoints=endpoints, values=snapshot.values[:, index]),
        matched_tokens=candidates.matched_tokens[index],
        matched_ratio=candidates.matched_ratio[index],
        prefill_s_per_ktoken=candidates.prefill_s_per_ktoken[index],
    )
