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
    uncached = np.maximum(1.0, prompt - matched_tokens)
    pairs = uncached * (prompt - uncached / 2)
    queued = np.maximum(
        0.0, snapshot.prefill_uncached_tokens - _head_progress(snapshot, prefill_s_per_ktoken)
    )
    step_tokens = np.maximum(MIN_STEP_TOKENS, snapshot.token_budget - snapshot.decode_requests)
    fluid_steps = (queued + uncached) / step_tokens
    # The mean of whole and fluid steps, and half a step for the one in progress.
    steps = (np.ceil(fluid_steps) + fluid_steps) / 2 + 0.5
    context = snapshot.decode_context_tokens
    demand = context + snapshot.prefill_prompt_tokens + prompt
    capacity = snapshot.kv_capacity_tokens
    deficit = np.nan_to_num(np.maximum(0.0, demand - KV_USABLE_RATIO * capacity))
    kv_usage = np.where(
        np.isnan(snapshot.kv_usage_ratio),
        np.nan_to_num(np.clip((demand - prompt) / capacity, 0.0, 1.0)),
        snapshot.kv_usage_ratio,
    )

    values = np.empty((n, N_FEATURES))
    values[:, 0] = 1.0
    values[:, 1] = (queued + uncached) / 1e3
    values[:, 2] = steps
    values[:, 3] = steps * snapshot.decode_requests / 1e2
    values[:, 4] = steps * context / 1e5
    values[:, 5] = (pairs + snapshot.prefill_pairs) / 1e7
    values[:, 6] = deficit / 1e3
    values[:, 7] = 0.1 * (snapshot.in_flight > 0) + snapshot.decode_requests / 1e3
    values[:, 8] = prompt
    values[:, 9] = uncached
    values[:, 10] = 1.0 - uncached / max(prompt, 1.0)
    values[:, 11] = snapshot.prefill_requests
    values[:, 12] = snapshot.decode_requests
    values[:, 13] = queued
    values[:, 14] = snapshot.prefill_prompt_tokens
    values[:, 15] = context
    values[:, 16] = _or_counted(snapshot.running_requests, snapshot.decode_requests)
    values[:, 17] = _or_counted(snapshot.waiting_requests, snapshot.prefill_requests)
    values[:, 18] = kv_usage

    per_ktoken = np.zeros((n, N_ENGINE))
    per_ktoken[:, 1] = 1.0
    per_ktoken[:, 2] = 1e3 / snapshot.token_budget
    per_ktoken[:, 4] = per_ktoken[:, 2] * context / 1e5
    marginal = per_ktoken * (uncached / 1e3)[:, None]
    marginal[:, 5] = pairs / 1e7
    return FeatureMatrix(values, marginal, per_ktoken, uncached)


def _head_progress(snapshot: FleetSnapshot, prefill_s_per_ktoken: FloatArray) -> FloatArray:
    """Tokens of the oldest prefill that have probably been computed, [n]."""
    started_at_s = np.maximum(
        snapshot.last_first_token_at_s, snapshot.head_dispatched_at_s + API_DELAY_S
    )
    # -inf where nothing waits: there is no head, so nothing to subtract.
    running_s = np.where(snapshot.prefill_requests > 0, snapshot.at_s - started_at_s, 0.0)
    rate_s = np.maximum(prefill_s_per_ktoken, MIN_PREFILL_S_PER_KTOKEN)
    done = 1e3 * running_s / rate_s
    return np.clip(done, 0.0, MAX_HEAD_PROGRESS_RATIO * snapshot.head_uncached_tokens)


def _or_counted(scraped: FloatArray, counted: FloatArray) -> FloatArray:
    """The scraped value where known, else what was counted here."""
    return np.where(np.isnan(scraped), counted, scraped)
