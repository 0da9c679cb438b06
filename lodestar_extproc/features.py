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


class Feature:
    """The place of each feature in a row.

    They are plain integers: by a member of an enum numpy takes twice as long to find a column.
    """

    (
        # Of the engine.
        CONSTANT,
        WORK_KTOKENS,
        STEPS,
        STEPS_X_DECODES,
        STEPS_X_CONTEXT,
        ATTENTION_PAIRS,
        KV_DEFICIT_KTOKENS,
        DECODE_LOAD,
        # Of the load.
        PROMPT_TOKENS,
        UNCACHED_TOKENS,
        HIT_RATIO,
        PREFILL_REQUESTS,
        DECODE_REQUESTS,
        QUEUED_UNCACHED_TOKENS,
        QUEUED_PROMPT_TOKENS,
        DECODE_CONTEXT_TOKENS,
        RUNNING_REQUESTS,
        WAITING_REQUESTS,
        KV_USAGE_RATIO,
    ) = range(19)


FEATURES = tuple(name.lower() for name in vars(Feature) if name.isupper())
"""Their names, in the order of a row."""
N_FEATURES = len(FEATURES)
N_ENGINE = Feature.PROMPT_TOKENS
ENGINE_FEATURES = FEATURES[:N_ENGINE]

API_DELAY_S = 0.02
"""A dispatched prompt starts no sooner than this: HTTP, tokenising, scheduling."""
MIN_PREFILL_S_PER_KTOKEN = 0.005
"""A guard for a rate that is not learned yet: no engine prefills 200,000 tokens a second."""
MIN_STEP_TOKENS = 256.0
"""Prefill tokens a step keeps however many requests decode."""
MAX_HEAD_PROGRESS_RATIO = 0.9
"""The oldest prefill has not ended, for no first token came, so some of it is left; a guess."""
KV_USABLE_RATIO = 0.98
"""Blocks in use are seldom full, so a cache is full a little before its capacity; a guess."""


def _scales() -> FloatArray:
    scales = np.ones((N_ENGINE, 1))
    scales[[Feature.WORK_KTOKENS, Feature.KV_DEFICIT_KTOKENS]] = 1e-3
    scales[Feature.STEPS_X_DECODES] = 1e-2
    scales[Feature.STEPS_X_CONTEXT] = 1e-5
    scales[Feature.ATTENTION_PAIRS] = 1e-7
    scales[Feature.DECODE_LOAD] = 0.1
    return scales


_SCALES = _scales()
"""Of the engine features, [N_ENGINE, 1]: such that all are about 1."""


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
    _fill_loads(rows, request.prompt_tokens, snapshot, queued, uncached)
    per_ktoken = np.zeros((N_ENGINE, len(snapshot)))
    per_ktoken[Feature.WORK_KTOKENS] = 1.0
    steps = np.divide(1e3, snapshot.token_budget, out=per_ktoken[Feature.STEPS])
    context = snapshot.decode_context_tokens / 1e5
    np.multiply(steps, context, out=per_ktoken[Feature.STEPS_X_CONTEXT])
    marginal = per_ktoken * (uncached / 1e3)
    np.divide(pairs, 1e7, out=marginal[Feature.ATTENTION_PAIRS])
    return FeatureMatrix(rows.T, marginal.T, per_ktoken.T, uncached)


def _fill_engine(
    rows: FloatArray, prompt: float, snapshot: FleetSnapshot, work: FloatArray, pairs: FloatArray
) -> None:
    """The engine features of *work* tokens, own ones included, and of *pairs* of one's own."""
    decodes, context = snapshot.decode_requests, snapshot.decode_context_tokens
    rows[Feature.CONSTANT] = 1.0
    rows[Feature.WORK_KTOKENS] = work
    fluid_steps = work / np.maximum(snapshot.token_budget - decodes, MIN_STEP_TOKENS)
    # The mean of whole and fluid steps, and half a step for the one in progress.
    steps = np.ceil(fluid_steps, out=rows[Feature.STEPS])
    steps += fluid_steps
    steps += 1.0
    steps *= 0.5
    np.multiply(steps, decodes, out=rows[Feature.STEPS_X_DECODES])
    np.multiply(steps, context, out=rows[Feature.STEPS_X_CONTEXT])
    np.add(pairs, snapshot.prefill_pairs, out=rows[Feature.ATTENTION_PAIRS])
    needed = context + snapshot.prefill_prompt_tokens + prompt
    # fmax: an unknown capacity (NaN) is no deficit.
    deficit = needed - KV_USABLE_RATIO * snapshot.kv_capacity_tokens
    np.fmax(deficit, 0.0, out=rows[Feature.KV_DEFICIT_KTOKENS])
    load = np.minimum(snapshot.in_flight, 1.0, out=rows[Feature.DECODE_LOAD])
    load += decodes / 1e2
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
    rows[Feature.PROMPT_TOKENS] = prompt
    rows[Feature.UNCACHED_TOKENS] = uncached
    np.subtract(1.0, uncached / max(prompt, 1.0), out=rows[Feature.HIT_RATIO])
    # In the order of their features: one call for them all.
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
    np.concatenate(loads, out=rows[Feature.PREFILL_REQUESTS :].reshape(-1))
    scraped = rows[Feature.RUNNING_REQUESTS :]
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
