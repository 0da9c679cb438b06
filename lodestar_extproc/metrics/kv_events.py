"""What is heard of engines that tell of their caches, read whenever Prometheus asks."""

from lodestar_extproc.metrics.metric import ENDPOINT, counter, gauge

KV_EVENTS = counter(
    "lodestar_kv_events_total",
    ENDPOINT,
    "KV events that the engine told of its cache and that were read; absent without `kv_events`.",
    "Standing still under load: it publishes nothing, or elsewhere. See docs/operations.md.",
)
KV_EVENT_FAULTS = counter(
    "lodestar_kv_event_faults_total",
    (*ENDPOINT, "kind"),
    "`malformed`: messages that could not be read, and were dropped. `gap`: times that messages "
    "were missed. `restart`: times that the engine began anew.",
    "Gaps without `replay_port`: what its cache holds is guessed until it has told enough again. "
    "Malformed ones: another program publishes there, or an engine of a version not known here.",
)
KV_BLOCKS = gauge(
    "lodestar_kv_blocks",
    ENDPOINT,
    "Blocks that the engine's cache holds, as its events say; absent while they are not followed.",
    "Absent for long: it tells of more blocks than are followed here, or is not heard.",
)
KV_PROMPTS = counter(
    "lodestar_kv_prompts_total",
    (*ENDPOINT, "result"),
    "Prompts whose blocks were found among those of the engine: `joined`; or not: `unjoined`.",
    "Many unjoined: other clients use the engine, or prompts are not what engines are sent.",
)
KV_MATCH_ERROR = counter(
    "lodestar_kv_match_error_tokens_total",
    ENDPOINT,
    "Tokens by which what was expected in the cache differed from what the usage of the answer "
    "says was found, where events were followed.",
    "Over `lodestar_kv_compared_tokens_total` more than a few hundredths: see `unjoined`.",
)
KV_COMPARED = counter(
    "lodestar_kv_compared_tokens_total",
    ENDPOINT,
    "Tokens of the prompts of which that was compared.",
    "Zero: answers tell no `cached_tokens` (vLLM: `--enable-prompt-tokens-details`).",
)
