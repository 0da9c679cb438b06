"""What is read of endpoints whenever Prometheus asks."""

from lodestar_extproc.metrics.metric import ENDPOINT, counter, gauge

ENDPOINT_INFO = gauge(
    "lodestar_endpoint_info",
    ("pool", "endpoint", "accelerator", "engine"),
    "1 for every endpoint.",
    "Join it to others for the accelerator.",
)
ENDPOINT_STATE = gauge(
    "lodestar_endpoint_state",
    ("pool", "endpoint", "state"),
    "1 for the state that the endpoint is in, 0 for the others.",
    "`down`: its health check fails. `joining`: it is new, and waits for its first good check. "
    "`ejected`: requests to it failed or stood still. "
    "`cooling`: it refuses, or answers nothing, where others serve. `frozen`: it takes requests "
    "and answers none. `sleeping`: its engine says that it sleeps; wake it up.",
)
ENDPOINT_PREFILLS = gauge(
    "lodestar_endpoint_prefill_requests",
    ENDPOINT,
    "Requests sent to it whose first token has not come; counted here.",
    "A queue builds up: the endpoint or the fleet is too slow for the load.",
)
ENDPOINT_PREFILL_TOKENS = gauge(
    "lodestar_endpoint_prefill_tokens",
    ENDPOINT,
    "Prompt tokens of these, less expected prefix hits.",
    "As above, in work instead of requests.",
)
ENDPOINT_DECODES = gauge(
    "lodestar_endpoint_decode_requests",
    ENDPOINT,
    "Answers that are generated; counted here, several of a request that asks for several.",
    "Near the engine's limit of sequences, new requests wait.",
)
ENGINE_RUNNING = gauge(
    "lodestar_engine_running_requests",
    ENDPOINT,
    "Running requests as the engine last said; absent where unknown or stale.",
    "Far above our own count: others send to this engine too.",
)
ENGINE_WAITING = gauge(
    "lodestar_engine_waiting_requests",
    ENDPOINT,
    "Waiting requests as the engine last said; absent where unknown or stale.",
    "Above 0 for long: the engine is full.",
)
ENGINE_KV_USAGE = gauge(
    "lodestar_engine_kv_usage_ratio",
    ENDPOINT,
    "Share of the KV cache in use as the engine last said; absent where unknown or stale.",
    "Near 1 the engine preempts requests and evicts prefixes.",
)
ENGINE_KV_CAPACITY = gauge(
    "lodestar_engine_kv_capacity_tokens",
    ENDPOINT,
    "Tokens the KV cache holds; absent where unknown.",
    "It bounds what we believe to be cached: set `kv_capacity_tokens` where it is absent.",
)
CACHE_BELIEF = gauge(
    "lodestar_endpoint_cache_belief_ratio",
    ENDPOINT,
    "Share of what the endpoint's prefix cache should hold that is believed to be there, by what "
    "the engine says it found.",
    "Below 1 it finds less than half of what was sent there before; 0: it says that it caches no "
    "prefixes. Look at its cache's size, salts, and `enable_prefix_caching`.",
)
LOST_PREFIX = gauge(
    "lodestar_lost_prefix_ratio",
    ("pool",),
    "Share of the tokens asked for lately that a prefix cache had and has lost; counted where "
    "`learned` is asked.",
    "It is computed again: more KV memory, or fewer sessions at a time, would save it.",
)
CACHES_OUTGROWN = gauge(
    "lodestar_caches_outgrown",
    ("pool",),
    "1 while running sessions need more than all prefix caches hold; 0 otherwise.",
    "1: the fleet has tipped over. `learned` keeps most caches whole and lets one overflow "
    "(`eviction_depth`); add endpoints or KV memory, or begin fewer sessions.",
)
SCRAPE_AGE = gauge(
    "lodestar_endpoint_scrape_age_seconds",
    ENDPOINT,
    "Age of the engine's last word; absent before the first.",
    "Above `scrape_stale_s` its values are unknown: see the failed scrapes.",
)
SCRAPE_INTERVAL = gauge(
    "lodestar_scrape_interval_seconds",
    ("pool",),
    "Time between two reads of the page of an engine that has work: `scrape_interval_s`, 1 s "
    "without traffic, or longer where all pages would take more than a fifth of a core.",
    "Above `scrape_stale_s` what engines say is unknown for a part of the time: the fleet is too "
    "large for the interval, or its pages are. Own counts serve.",
)
SCRAPES = counter(
    "lodestar_endpoint_scrapes_total",
    ("pool", "endpoint", "result"),
    "Reads of the engine's metric page: `succeeded` or `failed`.",
    "Failures: `/endpoints` of the admin server has the last one's cause.",
)
