"""What is counted request by request."""

from lodestar_extproc.metrics.metric import (
    ENDPOINT,
    POOL,
    RATIOS,
    SECONDS,
    SHORT_SECONDS,
    counter,
    gauge,
    histogram,
)

DECISIONS = counter(
    "lodestar_decisions_total",
    ("pool", "policy", "reason"),
    "Requests for which an endpoint was chosen, by the policy in force and why it chose so.",
    "A growing share of `untrusted` or `out_of_range`: look at the learner's error. "
    "`unparsed`: clients send bodies that are no inference request.",
)
PRIORITY_DECISIONS = counter(
    "lodestar_priority_decisions_total",
    ("pool", "priority"),
    "Of those, by the priority that `objective_priorities` gives the request; what was shed is in "
    '`lodestar_streams_total{verdict="shed"}`.',
    "Only requests below 0 are ever shed; nothing is wrong when it moves.",
)
ENDPOINT_DECISIONS = counter(
    "lodestar_endpoint_decisions_total",
    ENDPOINT,
    "Requests for which this endpoint was the first choice.",
    "An endpoint that gets none is unhealthy, slow or cold: see its state and error.",
)
DECISION_SECONDS = histogram(
    "lodestar_decision_seconds",
    POOL,
    "From a request's body to the choice that is counted: reading, predicting, ranking.",
    "Above a few milliseconds the process is short of CPU, or prompts are very long.",
    SHORT_SECONDS,
)
HELD_SECONDS = histogram(
    "lodestar_held_seconds",
    POOL,
    "How long requests were held here that would have waited at an engine, of those that were.",
    "It grows with load: near `hold_limit_s` the fleet is too small for what it is asked.",
    SECONDS,
)
SHADOW_DECISIONS = counter(
    "lodestar_shadow_decisions_total",
    ("pool", "policy", "agrees"),
    "What a shadow policy would have chosen: the endpoint that was (`true`) or another.",
    "Compare policies before you switch; nothing is wrong when it moves.",
)
PROMPT_TOKENS = counter(
    "lodestar_prompt_tokens_total",
    POOL,
    "Prompt tokens of the requests decided, by the learned bytes per token.",
    "It is the load; nothing is wrong when it moves.",
)
PREDICTED_HIT_TOKENS = counter(
    "lodestar_predicted_hit_tokens_total",
    POOL,
    "Of those, tokens that the chosen endpoint's prefix cache was expected to hold.",
    "A falling share of the prompt tokens: caches are too small, or prompts stopped sharing.",
)
REPORTED_PROMPT_TOKENS = counter(
    "lodestar_reported_prompt_tokens_total",
    POOL,
    "Prompt tokens as engines reported them, of the answers watched to their end.",
    "None at all: `observed_ratio` is 0, or clients ask for no usage "
    "(`stream_options: {include_usage: true}`).",
)
REPORTED_HIT_TOKENS = counter(
    "lodestar_reported_hit_tokens_total",
    POOL,
    "Of those, tokens that engines reported as cached.",
    "Far from the predicted share: the engines' caches hold less than their metrics say.",
)
REQUESTS = counter(
    "lodestar_requests_total",
    ("pool", "outcome"),
    "Requests that ended: `served`, `failed`, `refused` (a status of 300 to 499), `empty` (a good "
    "status and no answer), `unreadable`, `client_gone`, or `expired` without any word.",
    "`failed`, `empty`: look at the engines. `refused`: at clients, or at an engine that is "
    "`cooling`. `expired`: the access log does not reach us.",
)
UNUSED_DECISIONS = counter(
    "lodestar_unused_decisions_total",
    POOL,
    "Requests that Envoy sent on without waiting for our choice.",
    "We are too slow for Envoy's `message_timeout`: see the decision time and event-loop lag.",
)
IGNORED_CHOICES = counter(
    "lodestar_ignored_choices_total",
    POOL,
    "Requests for which Envoy waited for our choice, and sent its first attempt elsewhere.",
    "Many: its cluster does not follow choices, which `lodestar-extproc check` looks for. Some: it "
    "holds an endpoint unhealthy that we do not.",
)
RETRIES = counter(
    "lodestar_retries_total",
    POOL,
    "Attempts beyond the first.",
    "Endpoints refuse or reset connections: look at the ones that are not healthy.",
)
TTFT_SECONDS = histogram(
    "lodestar_ttft_seconds",
    ENDPOINT,
    "Observed TTFT of streamed answers, by the endpoint that served; what they were held is in it.",
    "Rising on one endpoint: it is slow or crowded. On all: the fleet is too small.",
    SECONDS,
)
PREDICTED_TTFT_SECONDS = histogram(
    "lodestar_predicted_ttft_seconds",
    ENDPOINT,
    "What was predicted for the same answers, where a model predicted.",
    "It should follow the observed TTFT; if it does not, see the error.",
    SECONDS,
)
TTFT_ERROR_RATIO = histogram(
    "lodestar_ttft_error_ratio",
    POOL,
    "|observed - predicted| over observed TTFT, of the same answers.",
    "Its spread; `lodestar_learner_error_ratio` is what trust goes by.",
    RATIOS,
)
OPEN_DECISIONS = gauge(
    "lodestar_open_decisions",
    POOL,
    "Decisions whose answers have not ended.",
    "Growing without end: Envoy's access log does not reach us.",
)
