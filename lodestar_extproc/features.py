"""extract(): the only definition of the features, for deciding and for training alike.

The first eight are the physics of a continuous-batching engine: a prompt waits for the uncached
tokens queued before it and for its own, in steps that also decode. A linear model of them with
coefficients >= 0 is a step-time model of the engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lodestar_extproc.endpoint import FleetSnapshot, FloatArray
from lodestar_extproc.request import InferenceRequest

ENGINE_FEATURES = (
    "constant",
    "work_ktokens",
    "steps",
    "steps_x_decodes",
    "steps_x_context",
    "attention_pairs",
    "kv_deficit_ktokens",
    "decode_load",
)
LOAD_FEATURES = (
    "prompt_tokens",
    "uncached_tokens",
    "hit_ratio",
    "prefill_requests",
    "decode_requests",
    "queued_uncached_tokens",
    "queued_prompt_tokens",
    "decode_context_tokens",
    "running_requests",
    "waiting_requests",
    "kv_usage_ratio",
)
FEATURES = ENGINE_FEATURES + LOAD_FEATURES
N_ENGINE = len(ENGINE_FEATURES)
N_FEATURES = len(FEATURES)

API_DELAY_S = 0.02
"""A dispatched prompt starts no sooner than this: HTTP, tokenising, scheduling."""
MIN_PREFILL_S_PER_KTOKEN = 0.005
MIN_STEP_TOKENS = 256.0
"""Prefill tokens a step keeps however many requests decode."""
MAX_HEAD_PROGRESS_RATIO = 0.9
KV_USABLE_RATIO = 0.98
_SCALES = np.array([[1.0], [1e-3], [1.0], [1e-2], [1e-5], [1e-7], [1e-3], [0.1]])
"""Of the engine features, so that all are about 1."""


@dataclass(frozen=True, slots=True)
class FeatureMatrix:
    """The features of one request on every candidate.

    Attributes:
        values: [n_endpoints, N_FEATURES], finite.
        marginal: [n_endpoints, N_ENGINE], what this request alone adds to the engine features,
            in fluid steps (uncached tokens over the token budget).
        per_ktoken: [n_endpoints, N_ENGINE], what 1000 more uncached tokens would add.
        uncached_tokens: [n_endpoints], at least 1.
    """

    values: FloatArray
    marginal: FloatArray
    per_ktoken: FloatArray
    uncached_tokens: FloatArray

    @property
    def engine(self) -> FloatArray:
        """The engine features, [n_endpoints, N_ENGINE]."""
        return self.values[:, :N_ENGINE]


def uncached_prompt_tokens(request: InferenceRequest, matched_tokens: FloatArray) -> FloatArray:
    """Prompt tokens each endpoint would compute, at least 1, [n]."""
    return np.maximum(request.prompt_tokens - matched_tokens, 1.0)


def extract(
    request: InferenceRequest,
    snapshot: FleetSnapshot,
    matched_tokens: FloatArray,
    prefill_s_per_ktoken: FloatArray,
) -> FeatureMatrix:
    """Features of *request* on every endpoint of *snapshot*.

    Args:
        request: the prompt.
        snapshot: the fleet now.
        matched_tokens: [n], leading prompt tokens each endpoint's cache probably holds.
        prefill_s_per_ktoken: [n], the learned rate, by which the oldest prefill has progressed.
    """
    uncached = uncached_prompt_tokens(request, matched_tokens)
    pairs = uncached * (request.prompt_tokens - 0.5 * uncached)
    queued = _queued_tokens(snapshot, prefill_s_per_ktoken)
    # Each call costs as much as the arithmetic for a hundred endpoints: hence few, and in place.
    rows = np.empty((N_FEATURES, len(snapshot)))
    _fill_engine(rows[:N_ENGINE], request.prompt_tokens, snapshot, queued + uncached, pairs)
    _fill_loads(rows[N_ENGINE:], request.prompt_tokens, snapshot, queued, uncached)
    per_ktoken = np.zeros((N_ENGINE, len(snapshot)))
    per_ktoken[1] = 1.0
    steps_per_ktoken = np.divide(1e3, snapshot.token_budget, out=per_ktoken[2])
    np.multiply(steps_per_ktoken, snapshot.decode_context_tokens / 1e5, out=per_ktoken[4])
    marginal = per_ktoken * (uncached / 1e3)
    np.divide(pairs, 1e7, out=marginal[5])
    return FeatureMatrix(rows.T, marginal.T, per_ktoken.T, uncached)


def _fill_engine(
    rows: FloatArray, prompt: float, snapshot: FleetSnapshot, work: FloatArray, pairs: FloatArray
) -> None:
    """The engine features of *work* tokens, own ones included, and of *pairs* of one's own."""
    decodes, context = snapshot.decode_requests, snapshot.decode_context_tokens
    rows[0] = 1.0
    rows[1] = work
    fluid_steps = work / np.maximum(snapshot.token_budget - decodes, MIN_STEP_TOKENS)
    # The mean of whole and fluid steps, and half a step for the one in progress.
    steps = np.ceil(fluid_steps, out=rows[2])
    steps += fluid_steps
    steps += 1.0
    steps *= 0.5
    np.multiply(steps, decodes, out=rows[3])
    np.multiply(steps, context, out=rows[4])
    np.add(pairs, snapshot.prefill_pairs, out=rows[5])
    needed = context + snapshot.prefill_prompt_tokens + prompt
    # fmax: an unknown capacity (NaN) is no deficit.
    np.fmax(needed - KV_USABLE_RATIO * snapshot.kv_capacity_tokens, 0.0, out=rows[6])
    np.minimum(snapshot.in_flight, 1.0, out=rows[7])
    rows[7] += decodes / 1e2
    rows *= _SCALES


def _fill_loads(
    rows: FloatArray,
    prompt: float,
    snapshot: FleetSnapshot,
    queued: FloatArray,
    uncached: FloatArray,
) -> None:
    """The load features; where a scraped value is unknown, what was counted here stands in."""
    decodes, context = snapshot.decode_requests, snapshot.decode_context_tokens
    rows[0] = prompt
    rows[1] = uncached
    np.subtract(1.0, uncached / max(prompt, 1.0), out=rows[2])
    loads = (
        snapshot.prefill_requests,
        decodes,
        queued,
        snapshot.prefill_prompt_tokens,
        context,
        snapshot.running_requests,
        snapshot.waiting_requests,
        snapshot.kv_usage_ratio,
    )
    np.concatenate(loads, out=rows[3:].reshape(-1))
    scraped = rows[8:]
    if math.isnan(scraped.sum()):
        unknown = np.isnan(scraped)
        counted = (decodes, snapshot.prefill_requests, _counted_kv_usage(snapshot))
        scraped[unknown] = np.stack(counted)[unknown]


def kv_usage_ratio(snapshot: FleetSnapshot) -> FloatArray:
    """As scraped, or where that is unknown as counted here, 0 to 1, [n]: the feature, alone."""
    scraped = snapshot.kv_usage_ratio
    if not math.isnan(np.add.reduce(scraped)):
        return scraped
    return np.where(np.isnan(scraped), _counted_kv_usage(snapshot), scraped)


def _counted_kv_usage(snapshot: FleetSnapshot) -> FloatArray:
    held = snapshot.decode_context_tokens + snapshot.prefill_prompt_tokens
    return np.fmin(np.fmax(held / snapshot.kv_capacity_tokens, 0.0), 1.0)


def _queued_tokens(snapshot: FleetSnapshot, prefill_s_per_ktoken: FloatArray) -> FloatArray:
    """Uncached tokens ahead, less what has probably been computed of the oldest prefill, [n]."""
    started_at_s = np.maximum(
        snapshot.last_first_token_at_s, snapshot.head_dispatched_at_s + API_DELAY_S
    )
    done = snapshot.at_s - started_at_s
    done /= np.maximum(prefill_s_per_ktoken / 1e3, MIN_PREFILL_S_PER_KTOKEN / 1e3)
    # Where nothing waits the head has no tokens, so none are done, however long ago it started.
    np.minimum(done, MAX_HEAD_PROGRESS_RATIO * snapshot.head_uncached_tokens, out=done)
    np.maximum(done, 0.0, out=done)
    queued: FloatArray = np.maximum(snapshot.prefill_uncached_tokens - done, 0.0, out=done)
    return queued
