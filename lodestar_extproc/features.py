"""extract(): the only definition of the features, for deciding and for training alike.

The first eight are the physics of a continuous-batching engine: a prompt waits for the uncached
tokens queued before it and for its own, in steps that also decode. A linear model of them with
coefficients >= 0 is a step-time model of the engine.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lodestar_extproc.endpoint import (
    HALF,
    ONE,
    SCRAPED,
    ZERO,
    FleetSnapshot,
    FloatArray,
    rows_of,
)
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
_MARGINAL, _PER_KTOKEN = slice(N_ENGINE), slice(N_ENGINE, 2 * N_ENGINE)
_ENGINE, _VALUES = slice(2 * N_ENGINE, 3 * N_ENGINE), slice(2 * N_ENGINE, None)
"""Where each part of a `FeatureMatrix` stands."""

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

# As `endpoint.ONE`.
_1E2, _1E3, _1E5, _1E7 = np.array(1e2), np.array(1e3), np.array(1e5), np.array(1e7)
_API_DELAY_S = np.array(API_DELAY_S)
_MIN_PREFILL_S_PER_TOKEN = np.array(MIN_PREFILL_S_PER_KTOKEN / 1e3)
_MIN_STEP_TOKENS = np.array(MIN_STEP_TOKENS)
_MAX_HEAD_PROGRESS_RATIO = np.array(MAX_HEAD_PROGRESS_RATIO)
_KV_USABLE_RATIO = np.array(KV_USABLE_RATIO)


def _scales() -> FloatArray:
    scales = np.ones((N_ENGINE, 1))
    scales[[Feature.WORK_KTOKENS, Feature.KV_DEFICIT_KTOKENS]] = 1e-3
    scales[Feature.STEPS] = 0.5
    scales[Feature.STEPS_X_DECODES] = 0.5e-2
    scales[Feature.STEPS_X_CONTEXT] = 0.5e-5
    scales[Feature.ATTENTION_PAIRS] = 1e-7
    scales[Feature.DECODE_LOAD] = 0.1
    return scales


SCALES = _scales()
"""Of the engine features, [N_ENGINE, 1]: such that all are about 1, and half of twice the steps."""
_OF_A_KTOKEN = np.zeros((N_ENGINE, 1))
_OF_A_KTOKEN[Feature.WORK_KTOKENS] = 1.0
"""What 1000 uncached tokens are of the features that no endpoint has a say in, [N_ENGINE, 1]."""

_ENGINE_LOAD = rows_of(
    FleetSnapshot.token_budget,
    FleetSnapshot.decode_requests,
    FleetSnapshot.prefill_requests,
    FleetSnapshot.prefill_pairs,
    FleetSnapshot.kv_capacity_tokens,
)
_COUNTED_LOAD = rows_of(
    FleetSnapshot.prefill_requests,
    FleetSnapshot.decode_requests,
    FleetSnapshot.prefill_prompt_tokens,
)
_QUEUE = rows_of(
    FleetSnapshot.last_first_token_at_s,
    FleetSnapshot.head_dispatched_at_s,
    FleetSnapshot.head_uncached_tokens,
    FleetSnapshot.prefill_uncached_tokens,
)


class FeatureMatrix(NamedTuple):
    """The features of one request on every candidate.

    Attributes:
        rows: [2 * N_ENGINE + N_FEATURES, n_endpoints], all of it in one block.
        uncached_tokens: [n_endpoints], at least 1.
    """

    rows: FloatArray
    uncached_tokens: FloatArray

    @property
    def values(self) -> FloatArray:
        """The features, [n_endpoints, N_FEATURES], finite."""
        return self.rows[_VALUES].T

    def row(self, index: int) -> FloatArray:
        """The features of one endpoint, [N_FEATURES]."""
        return self.rows[_VALUES, index]

    @property
    def engine(self) -> FloatArray:
        """Of these the engine's, [n_endpoints, N_ENGINE]."""
        return self.rows[_ENGINE].T

    @property
    def marginal(self) -> FloatArray:
        """What this request alone adds to the engine's, [n_endpoints, N_ENGINE].

        In fluid steps: uncached tokens over the token budget.
        """
        return self.rows[_MARGINAL].T

    @property
    def per_ktoken(self) -> FloatArray:
        """What 1000 more uncached tokens would add to the engine's, [n_endpoints, N_ENGINE]."""
        return self.rows[_PER_KTOKEN].T

    @property
    def engine_parts(self) -> FloatArray:
        """`marginal`, `per_ktoken` and `engine`, [3, n_endpoints, N_ENGINE]: for one product."""
        return self.rows[: 3 * N_ENGINE].reshape(3, N_ENGINE, -1).transpose(0, 2, 1)


def uncached_prompt_tokens(
    prompt_tokens: float | FloatArray, matched_tokens: FloatArray
) -> FloatArray:
    """Prompt tokens each endpoint would compute, at least 1, [n]."""
    uncached: FloatArray = np.maximum(prompt_tokens - matched_tokens, ONE)
    return uncached


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
    prompt = np.array(request.prompt_tokens)  # as `ONE`
    uncached = uncached_prompt_tokens(prompt, matched_tokens)
    pairs = uncached * (prompt - HALF * uncached)
    queued = queued_tokens(snapshot, prefill_s_per_ktoken)
    # Each call costs as much as the arithmetic for a hundred endpoints: hence few, and in place.
    rows = np.empty((2 * N_ENGINE + N_FEATURES, len(snapshot)))
    _fill_engine(rows[_ENGINE], prompt, snapshot, queued + uncached, pairs)
    _fill_loads(rows[_VALUES], request.prompt_tokens, snapshot, queued, uncached)
    per_ktoken = rows[_PER_KTOKEN]
    per_ktoken[:] = _OF_A_KTOKEN
    steps = np.divide(_1E3, snapshot.token_budget, out=per_ktoken[Feature.STEPS])
    context = snapshot.decode_context_tokens / _1E5
    np.multiply(steps, context, out=per_ktoken[Feature.STEPS_X_CONTEXT])
    marginal = np.multiply(per_ktoken, uncached / _1E3, out=rows[_MARGINAL])
    np.divide(pairs, _1E7, out=marginal[Feature.ATTENTION_PAIRS])
    return FeatureMatrix(rows, uncached)


def _fill_engine(
    rows: FloatArray,
    prompt: FloatArray,
    snapshot: FleetSnapshot,
    work: FloatArray,
    pairs: FloatArray,
) -> None:
    """The engine features of *work* tokens, own ones included, and of *pairs* of one's own."""
    budget, decodes, prefills, pairs_ahead, capacity = _ENGINE_LOAD(snapshot.values)
    rows[Feature.CONSTANT] = ONE
    rows[Feature.WORK_KTOKENS] = work
    fluid_steps = work / np.maximum(budget - decodes, _MIN_STEP_TOKENS)
    # The mean of whole and fluid steps, and half a step for the one in progress: twice of it.
    steps = np.ceil(fluid_steps, out=rows[Feature.STEPS])
    steps += fluid_steps
    steps += ONE
    np.multiply(steps, decodes, out=rows[Feature.STEPS_X_DECODES])
    np.multiply(steps, snapshot.decode_context_tokens, out=rows[Feature.STEPS_X_CONTEXT])
    np.add(pairs, pairs_ahead, out=rows[Feature.ATTENTION_PAIRS])
    needed = snapshot.held_tokens + prompt
    # fmax: an unknown capacity (NaN) is no deficit.
    deficit = needed - _KV_USABLE_RATIO * capacity
    np.fmax(deficit, ZERO, out=rows[Feature.KV_DEFICIT_KTOKENS])
    load = np.minimum(prefills + decodes, ONE, out=rows[Feature.DECODE_LOAD])
    load += decodes / _1E2
    rows *= SCALES


def _fill_loads(
    rows: FloatArray,
    prompt: float,
    snapshot: FleetSnapshot,
    queued: FloatArray,
    uncached: FloatArray,
) -> None:
    """The load features; where a scraped value is unknown, what was counted here stands in."""
    prefills, decodes, prompts_ahead = _COUNTED_LOAD(snapshot.values)
    hit_ratio = ONE - uncached / max(prompt, 1.0)
    context, reported = snapshot.decode_context_tokens, snapshot.values[SCRAPED].reshape(-1)
    rows[Feature.PROMPT_TOKENS] = prompt
    # In the order of their features, which is the columns' own of what is reported: one call.
    loads = (uncached, hit_ratio, prefills, decodes, queued, prompts_ahead, context, reported)
    np.concatenate(loads, out=rows[Feature.UNCACHED_TOKENS :].reshape(-1))
    if math.isnan(reported.dot(reported)):  # a third of what a sum costs
        scraped = rows[Feature.RUNNING_REQUESTS :]
        unknown = np.isnan(scraped)
        counted = (decodes, prefills, _counted_kv_usage(snapshot))
        scraped[unknown] = np.stack(counted)[unknown]


def kv_usage_ratio(snapshot: FleetSnapshot) -> FloatArray:
    """As scraped, or where that is unknown as counted here, 0 to 1, [n]: the feature, alone."""
    scraped = snapshot.kv_usage_ratio
    if not math.isnan(np.add.reduce(scraped)):
        return scraped
    return np.where(np.isnan(scraped), _counted_kv_usage(snapshot), scraped)


def _counted_kv_usage(snapshot: FleetSnapshot) -> FloatArray:
    held_ratio = snapshot.held_tokens / snapshot.kv_capacity_tokens
    counted: FloatArray = np.fmin(np.fmax(held_ratio, ZERO), ONE)
    return counted


def queued_tokens(snapshot: FleetSnapshot, prefill_s_per_ktoken: FloatArray) -> FloatArray:
    """Uncached tokens ahead, less what has probably been computed of the oldest prefill, [n]."""
    last_at_s, head_at_s, head_tokens, tokens_ahead = _QUEUE(snapshot.values)
    done = snapshot.at_s - np.maximum(last_at_s, head_at_s + _API_DELAY_S)
    done /= np.maximum(prefill_s_per_ktoken / _1E3, _MIN_PREFILL_S_PER_TOKEN)
    # Where nothing waits the head has no tokens, so none are done, however long ago it started.
    np.minimum(done, _MAX_HEAD_PROGRESS_RATIO * head_tokens, out=done)
    np.maximum(done, ZERO, out=done)
    queued: FloatArray = np.maximum(tokens_ahead - done, ZERO, out=done)
    return queued
