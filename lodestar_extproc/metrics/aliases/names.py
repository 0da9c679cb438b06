"""What is counted request by request, under the names of others."""

from __future__ import annotations

from lodestar_extproc.metrics.aliases.alias import (
    COUNTER,
    EPP,
    EXTENSION,
    GAUGE,
    HISTOGRAM,
    OBJECTIVE,
    ROUTER,
    alias,
    named,
)

MODEL_LABELS = ("model_name", "target_model_name", "priority", "fairness_id", "inference_pool")
SATURATION_LABELS = ("inference_pool",)
ATTEMPT_LABELS = (
    "status",
    "target_model_name",
    "pod_name",
    "endpoint_name",
    "namespace",
    "port",
    "inference_pool",
)
# Bounds as those of the sources above, so that quantiles of both are comparable.
_DURATION_S = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0)
_LONG_S = (
    8.0,
    10.0,
    15.0,
    20.0,
    30.0,
    45.0,
    60.0,
    120.0,
    180.0,
    240.0,
    300.0,
    600.0,
    1800.0,
    3600.0,
)
LATENCY_S = (*_DURATION_S, *_LONG_S)
OWN_WORK_S = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1)
PER_TOKEN_S = (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
TOKENS = (1.0, *(float(2**n) for n in range(3, 21)))
BYTES = tuple(float(2**n) for n in range(6, 31, 2))
RATIOS = tuple(n / 10 for n in range(11))

REQUESTS = alias(
    COUNTER, named(OBJECTIVE, "request_total"), MODEL_LABELS, "Requests for which we chose."
)
ERRORS = alias(
    COUNTER,
    named(OBJECTIVE, "request_error_total"),
    (*MODEL_LABELS, "error_code"),
    "Requests that failed or were refused, by status; `none` where there was none.",
)
DURATION = alias(
    HISTOGRAM,
    named(OBJECTIVE, "request_duration_seconds"),
    MODEL_LABELS,
    "From the choice to the end of the answer.",
    LATENCY_S,
)
REQUEST_BYTES = alias(
    HISTOGRAM,
    named(OBJECTIVE, "request_sizes", epp="request_size_bytes"),
    MODEL_LABELS,
    "Prompt bytes; theirs are of the whole body.",
    BYTES,
)
RESPONSE_BYTES = alias(
    HISTOGRAM,
    named(OBJECTIVE, "response_sizes", router="request_response_sizes", epp="response_size_bytes"),
    MODEL_LABELS,
    "Bytes of the answer's body, by Envoy's access log.",
    BYTES,
)
INPUT_TOKENS = alias(
    HISTOGRAM,
    named(OBJECTIVE, "input_tokens", router="request_input_tokens", epp="request_input_tokens"),
    MODEL_LABELS,
    "Prompt tokens: as the engine reported them, else as we count them.",
    TOKENS,
)
OUTPUT_TOKENS = alias(
    HISTOGRAM,
    named(OBJECTIVE, "output_tokens", router="request_output_tokens", epp="request_output_tokens"),
    MODEL_LABELS,
    "Tokens of the answers that were watched to their end (`observed_ratio`).",
    TOKENS,
)
CACHED_TOKENS = alias(
    HISTOGRAM,
    named(OBJECTIVE, "prompt_cached_tokens", epp="request_cached_tokens"),
    MODEL_LABELS,
    "Prompt tokens that the engine found cached, of the same answers.",
    TOKENS,
)
PER_TOKEN = alias(
    HISTOGRAM,
    named(OBJECTIVE, "normalized_time_per_output_token_seconds", epp="request_ntpot_seconds"),
    MODEL_LABELS,
    "Their duration over their output tokens.",
    PER_TOKEN_S,
)
TTFT = alias(
    HISTOGRAM,
    (ROUTER + "request_ttft_seconds", EPP + "request_ttft_seconds"),
    MODEL_LABELS,
    "TTFT of streamed answers.",
    LATENCY_S,
)
PREDICTED_TTFT = alias(
    HISTOGRAM,
    (ROUTER + "request_predicted_ttft_seconds", EPP + "request_predicted_ttft_seconds"),
    MODEL_LABELS,
    "What was predicted for the same answers.",
    LATENCY_S,
)
RUNNING = alias(
    GAUGE,
    named(OBJECTIVE, "running_requests", epp="request_running"),
    MODEL_LABELS,
    "Requests whose answers have not ended.",
)
SCHEDULER = alias(
    HISTOGRAM,
    named(EXTENSION, "scheduler_e2e_duration_seconds"),
    SATURATION_LABELS,
    "From the arrival of a request's body to the choice.",
    OWN_WORK_S,
)
ATTEMPTS = alias(
    COUNTER,
    named(EXTENSION, "scheduler_attempts_total"),
    ATTEMPT_LABELS,
    "Choices, by the first of the endpoints chosen.",
)
PLUGIN = alias(
    HISTOGRAM,
    named(EXTENSION, "plugin_duration_seconds"),
    ("extension_point", "plugin_type", "plugin_name", "inference_pool"),
    "The same, under the name of the policy in force: it is no chain of plugins.",
    OWN_WORK_S,
)
HIT_RATIO = alias(
    HISTOGRAM,
    named(EXTENSION, "prefix_indexer_hit_ratio"),
    SATURATION_LABELS,
    "Share of the prompt that the chosen cache was expected to hold.",
    RATIOS,
)
QUEUE_LABELS = (
    "fairness_id",
    "priority",
    "inference_pool",
    "model_name",
    "target_model_name",
    "outcome",
)
QUEUED_S = alias(
    HISTOGRAM,
    named(EXTENSION, "flow_control_request_queue_duration_seconds"),
    QUEUE_LABELS,
    "How long a request was held here, and the wait for our choice.",
    (*OWN_WORK_S, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
ENQUEUED_S = alias(
    HISTOGRAM,
    named(EXTENSION, "flow_control_request_enqueue_duration_seconds"),
    QUEUE_LABELS,
    "The wait for our choice.",
    OWN_WORK_S,
)
CYCLE_S = alias(
    HISTOGRAM,
    named(EXTENSION, "flow_control_dispatch_cycle_duration_seconds"),
    SATURATION_LABELS,
    "The same.",
    OWN_WORK_S,
)
REQUEST_ALIASES = (
    REQUESTS,
    ERRORS,
    DURATION,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    CACHED_TOKENS,
    PER_TOKEN,
    TTFT,
    PREDICTED_TTFT,
    RUNNING,
    SCHEDULER,
    ATTEMPTS,
    PLUGIN,
    HIT_RATIO,
    QUEUED_S,
    ENQUEUED_S,
    CYCLE_S,
)
"""What is counted request by request."""
