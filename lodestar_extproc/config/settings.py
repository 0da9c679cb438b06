"""PoolSettings: every setting of a pool, declared once.

Validation, error messages and docs/settings.md come from these lines.
"""

from __future__ import annotations

from dataclasses import dataclass

from lodestar_extproc.config.extras import check_extras
from lodestar_extproc.config.kv_events import KvEvents
from lodestar_extproc.config.mapped import NO_PRIORITIES, NO_REWRITES, ModelRewrites, Priorities
from lodestar_extproc.config.setting import SettingError, check, setting
from lodestar_extproc.config.share import check_share

# Defaults of weights and bounds were tuned or argued for in docs/learning.md and the decisions.

FIXED_POLICIES = (
    "random",
    "round_robin",
    "least_request",
    "power_of_two",
    "prefix_cache",
    "prefix_affinity_token_load",
    "lmetric",
    "cache_cost",
    "cache_aware",
    "least_load",
    "session_affinity",
)
POLICIES = (*FIXED_POLICIES, "learned")
PAPER_POLICY = "lodestar_paper"
COSTS = ("externality", "ttft", "goodput", "end_to_end")
HEADER_KINDS = ("objective", "slo", "model_rewrite")
HOLD_LIMIT_S = 2.0
"""Where no setting tells. With 5 s the mean TTFT fell by some hundredths more, and a service that
freezes while it holds requests would cost them as much."""
PREDICTORS = ("engine", "bayesian_linear", "residual", "mlp", "auto")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How one pool decides, learns and watches its endpoints.

    Raises:
        SettingError: a value is out of bounds, or two contradict each other.
    """

    policy: str = setting(
        "learned",
        "What chooses the endpoint; `lodestar_paper`, the router of arXiv 2606.00946, is there to "
        "be compared with and needs `predictor: mlp`.",
        choices=(*POLICIES, PAPER_POLICY),
    )
    fallback_policy: str = setting(
        "prefix_affinity_token_load",
        "What chooses while the predictor is not trusted, and for bodies that cannot be read.",
        choices=FIXED_POLICIES,
    )
    shadow_policies: tuple[str, ...] = setting(
        (), "Policies that are scored beside the active one and never decide.", choices=POLICIES
    )
    cost: str = setting(
        "externality",
        "What the learned policy minimises: own TTFT and the delay caused to others "
        "(`externality`), own TTFT alone (`ttft`), requests that miss their bound on TTFT "
        "(`goodput`), or the time to the end of answers (`end_to_end`).",
        choices=COSTS,
        was="objective",
    )
    externality_weight: float = setting(
        2.0, "Weight of the delay caused to others against the request's own TTFT.", at_least=0
    )
    backlog_limit_s: float | None = setting(
        None,
        "Work ahead of the request beyond which the delay it causes to others grows no more; null "
        "for no limit.",
        at_least=0,
    )
    decode_weight: float = setting(
        0.15,
        "Price of a second by which the request slows one that is generating, in seconds of TTFT.",
        at_least=0,
    )
    eviction_weight: float = setting(
        1.0,
        "Price of a second of prefill that has to be done again, because the request takes its "
        "place in a prefix cache.",
        at_least=0,
    )
    eviction_depth: float = setting(
        20.0,
        "How often, at most, what is displaced counts where running sessions have outgrown all "
        "caches: more keeps most caches whole and lets one overflow, 1 treats all alike.",
        at_least=1,
    )
    memory_weight_s: float = setting(
        0.3, "Price of the KV cache memory a request takes; it rises as memory fills.", at_least=0
    )
    generation_weight: float = setting(
        1.0,
        "Under `end_to_end`, weight of the time after the first token against TTFT: 1 for "
        "end-to-end latency, more for TPOT.",
        at_least=0,
    )
    hold_limit_s: float | None = setting(
        None,
        "How long a request may be held here, where it would wait at an engine behind others' "
        "prompts: shorter ones go first. 0 holds none; null is 2 s, or what `max_message_timeout` "
        "of the Envoy file's filter allows, if that is less.",
        at_least=0,
    )
    predictor: str = setting(
        "engine", "What predicts TTFT; `mlp` needs that extra.", choices=PREDICTORS, was="model"
    )
    shadow: bool = setting(
        default=False, text="Decide and learn, but leave the choice of the endpoint to Envoy."
    )
    retry_candidates: int = setting(
        3,
        "How many endpoints go out, best first; a retry takes the next.",
        at_least=2,
        at_most=16,
        was="fallback_candidates",
    )
    exploration_ratio: float = setting(
        0.01,
        "Share of requests sent on purpose to an endpoint about which little is known.",
        at_least=0,
        at_most=1,
    )
    burn_in_samples: int = setting(
        50, "First tokens to learn from before the predictor may decide.", at_least=0
    )
    trust_max_error_ratio: float = setting(
        1.0,
        "The fallback decides while the median of the predictor's live errors is above this; 1 "
        "means wrong by a factor of two.",
        above=0,
    )
    mlp_retrain_samples: int = setting(
        1000, "New samples between two trainings of the predictor `mlp`.", at_least=1
    )
    ttft_slo_s: float | None = setting(
        None, "Bound on TTFT for requests that name none of their own.", above=0
    )
    tpot_slo_s: float | None = setting(
        None,
        "Bound on the time between output tokens for requests that name none of their own; "
        "endpoints predicted to miss it rank behind those that meet it.",
        above=0,
    )
    request_timeout_s: float = setting(
        600.0, "A request of which nothing is heard for this long is counted as gone.", above=0
    )
    strict: bool = setting(
        default=False,
        text="Answer 400 to a body that cannot be read, instead of leaving it to the engine.",
    )
    answer_503: bool = setting(
        default=False,
        text="Answer 503 where no endpoint may be chosen, instead of leaving it to Envoy; in full "
        "duplex, and for a gateway's subset without endpoints, that is always done.",
    )
    objective_priorities: Priorities = setting(
        NO_PRIORITIES,
        "Priority of the requests of each objective (`x-llm-d-inference-objective`), 0 of others. "
        "Below 0 a request is sheddable: it is answered 429, with a time to wait, while every "
        "endpoint is predicted to miss its bound on TTFT or on TPOT.",
    )
    model_rewrites: ModelRewrites = setting(
        NO_REWRITES,
        "Models to ask engines for in place of the one a body names, such as "
        "`{chat: {llama-3-8b: 90, llama-3-8b-v2: 10}}`: each request gets one of them, by weight.",
    )
    adapter_load_s: float = setting(
        1.0,
        "What a LoRA adapter is taken to cost on an endpoint where another has to leave for it; "
        "where it runs it costs nothing, and with room for it a fifth. 0 prefers none.",
        at_least=0,
    )
    session_header: str = setting(
        "x-session-id",
        "Header that names the session, before those of coding agents; for `session_affinity`.",
    )
    trusted_headers: tuple[str, ...] = setting(
        ("objective", "slo"),
        "Headers that are heeded, whoever sent them: `objective`, the request's priority by "
        "`objective_priorities`; `slo`, its bounds on TTFT and on the time between tokens; "
        "`model_rewrite`, the model to ask the engine for, where only filters of yours can set it.",
        choices=HEADER_KINDS,
    )
    inference_paths: tuple[str, ...] = setting(
        (),
        "Ends of more paths by which clients ask for inference, beside those of OpenAI, Anthropic, "
        "vLLM, SGLang, Triton, llama.cpp and Ollama; their bodies are read by their shape.",
        begins_with="/",
    )
    conformance_headers: bool = setting(
        default=False,
        text="Obey and answer the headers of the Gateway API conformance tests; never for clients.",
    )
    observed_ratio: float = setting(
        0.02,
        "Share of answers watched to their end, for their usage. Those of an endpoint in doubt are "
        "watched besides.",
        at_least=0,
        at_most=1,
    )
    bytes_per_token: float = setting(
        4.0, "Prompt bytes a token stands for until it is learned from usage.", above=0
    )
    kv_events: KvEvents | None = setting(
        None,
        "Where engines publish KV events (vLLM), as in `{port: 5557, replay_port: 5558}`, by which "
        "what their caches hold is known exactly. Needs the extra `kv-events`; null listens to "
        "none.",
    )
    metrics_path: str = setting(
        "/metrics", "Where an engine's metrics are read; with a `?` exactly so.", begins_with="/"
    )
    scrape_interval_s: float = setting(
        0.2, "Time between two reads of an engine's metrics; longer while it rests.", at_least=0.01
    )
    scrape_timeout_s: float = setting(1.0, "How long one read may take.", above=0)
    scrape_stale_s: float = setting(
        2.0, "A metric older than this is unknown; at least the scrape interval.", above=0
    )
    health_path: str | None = setting(
        None,
        "Where an engine's health is asked; null for where the cluster's own HTTP health check "
        "asks, and `/health` without one.",
        begins_with="/",
    )
    health_interval_s: float = setting(
        1.0, "Time between two health checks of an endpoint.", at_least=0.05
    )
    health_timeout_s: float = setting(1.0, "How long one health check may take.", above=0)
    engine_tls: str | None = setting(
        None,
        "How engines are asked for metrics and health: `off` for plain HTTP, `verified` or "
        "`unverified` for TLS; null for as Envoy reaches them, by the cluster's transport socket.",
        choices=("off", "verified", "unverified"),
    )
    engine_ca_path: str | None = setting(
        None,
        "Certificates by which those of engines are checked, PEM; null for the cluster's, and the "
        "system's without any.",
    )
    engine_certificate_path: str | None = setting(
        None, "Our own certificate, where engines ask for one, PEM; null for the cluster's."
    )
    engine_key_path: str | None = setting(None, "Its private key; null for the cluster's.")
    engine_server_name: str | None = setting(
        None,
        "Name that engines are asked by (SNI), and that under `verified` their certificates need; "
        "null for the cluster's.",
    )
    unhealthy_threshold: int = setting(
        2, "Failed health checks in a row that take an endpoint out.", at_least=1
    )
    healthy_threshold: int = setting(1, "Passed checks in a row that bring it back.", at_least=1)
    frozen_after_s: float = setting(
        10.0,
        "An endpoint that owes first tokens, or the rest of answers, for this long, while others "
        "deliver, is taken out.",
        above=0,
    )
    checkpoint_path: str | None = setting(
        None, "File in which what was learned survives a restart; null keeps it in memory only."
    )
    checkpoint_interval_s: float = setting(30.0, "Time between two checkpoints.", above=0)
    journal_path: str | None = setting(
        None,
        "File to which decisions and outcomes are appended, without prompt text, for `replay`.",
        restart=True,
    )
    share: str | None = setting(
        None,
        "Redis or Valkey through which replicas share what they know, as in "
        "`redis://host:6379?frame_ms=30&prefix=lodestar`; also `rediss://`, `redis+sentinel://`, "
        "`redis+cluster://`. Needs the extra `redis`; null shares nothing.",
        restart=True,
    )
    seed: int | None = setting(
        None, "Makes random choices repeatable; for tests.", at_least=0, restart=True
    )

    def __post_init__(self) -> None:
        check(self)
        if self.policy == PAPER_POLICY and self.predictor != "mlp":
            raise SettingError(
                "predictor", f'policy {PAPER_POLICY} is made for predictor "mlp": set it'
            )
        check_extras(predictor=self.predictor, kv_events=self.kv_events is not None)
        if self.share is not None:
            check_share(self.share)
        if (stale_s := self.scrape_stale_s) < (interval_s := self.scrape_interval_s):
            problem = f"less than scrape_interval_s ({interval_s:g}): every metric would be unknown"
            raise SettingError("scrape_stale_s", f"{stale_s:g} is {problem}")
