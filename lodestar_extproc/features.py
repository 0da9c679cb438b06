"""extract(): the only definition of the features, for deciding and for training alike.

The first eight are the physics of a continuous-batching engine: a prompt waits for the uncached
tokens queued before it and for its own, in steps that also decode. A linear model of them with
coefficients >= 0 is a step-time model of the engine.
"""

from __future__ import annotations

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
    n = len(snapshot)
    prompt = request.prompt_tokens
    decodes, context = snapshot.decode_requests, snapshot.decode_context_tokens
    uncached = uncached_prompt_tokens(request, matched_tokens)
    pairs = uncached * (prompt - 0.5 * uncached)
    queued = _queued_tokens(snapshot, prefill_s_per_ktoken)
    work = queued + uncached
    fluid_steps = work / np.maximum(snapshot.token_budget - decodes, MIN_STEP_TOKENS)
    # The mean of whole and fluid steps, and half a step for the one in progress.
    steps = 0.5 * (np.ceil(fluid_steps) + fluid_steps) + 0.5
    held = context + snapshot.prefill_prompt_tokens
    capacity = snapshot.kv_capacity_tokens

    rows = np.empty((N_FEATURES, n))
    rows[0] = 1.0
    rows[1] = work / 1e3
    rows[2] = steps
    rows[3] = steps * decodes / 1e2
    rows[4] = steps * context / 1e5
    rows[5] = (pairs + snapshot.prefill_pairs) / 1e7
    # fmax: an unknown capacity (NaN) is no deficit.
    rows[6] = np.fmax((held + prompt - KV_USABLE_RATIO * capacity) / 1e3, 0.0)
    rows[7] = 0.1 * (snapshot.prefill_requests + decodes > 0) + decodes / 1e3
    rows[8] = prompt
    rows[9] = uncached
    rows[10] = 1.0 - uncached / max(prompt, 1.0)
    rows[11] = snapshot.prefill_requests
    rows[12] = decodes
    rows[13] = queued
    rows[14] = snapshot.prefill_prompt_tokens
    rows[15] = context
    rows[16] = snapshot.running_requests
    rows[17] = snapshot.waiting_requests
    rows[18] = snapshot.kv_usage_ratio
    _replace_unknown(rows, held / capacity)

    per_ktoken = np.zeros((N_ENGINE, n))
    per_ktoken[1] = 1.0
    per_ktoken[2] = 1e3 / snapshot.token_budget
    per_ktoken[4] = per_ktoken[2] * context / 1e5
    marginal = per_ktoken * (uncached / 1e3)
    marginal[5] = pairs / 1e7
    return FeatureMatrix(rows.T, marginal.T, per_ktoken.T, uncached)


def _queued_tokens(snapshot: FleetSnapshot, prefill_s_per_ktoken: FloatArray) -> FloatArray:
    """Uncached tokens ahead, less what has probably been computed of the oldest prefill, [n]."""
    started_at_s = np.maximum(
        snapshot.last_first_token_at_s, snapshot.head_dispatched_at_s + API_DELAY_S
    )
    rate_s = np.maximum(prefill_s_per_ktoken, MIN_PREFILL_S_PER_KTOKEN)
    # Where nothing waits the head has no tokens, so none are done, however long ago it started.
    done = np.minimum(
        1e3 * (snapshot.at_s - started_at_s) / rate_s,
        MAX_HEAD_PROGRESS_RATIO * snapshot.head_uncached_tokens,
    )
    return np.maximum(snapshot.prefill_uncached_tokens - np.maximum(done, 0.0), 0.0)


def _replace_unknown(rows: FloatArray, counted_kv_usage: FloatArray) -> None:
    """Where a scraped value is unknown, what was counted here stands in; no row stays NaN."""
    unknown = np.isnan(rows[16:19])
    if unknown.any():
        counted = np.stack((rows[12], rows[11], np.fmin(np.fmax(counted_kv_usage, 0.0), 1.0)))
        rows[16:19][unknown] = counted[unknown]
