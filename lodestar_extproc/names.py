"""Every name that Envoy, gateways, clients and we must spell alike."""

from __future__ import annotations

PROCESS_METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
ACCESS_LOG_METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
EXT_PROC_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
HEALTH_SERVICE = "grpc.health.v1.Health"

METADATA_NAMESPACE = "envoy.lb"
"""Dynamic metadata that carries the choice from the ext_proc filter to the load balancer."""
DESTINATION = "x-gateway-destination-endpoint"
"""Header and metadata key of the choice: `ip:port[,ip:port...]`, best first."""
SERVED = "x-gateway-destination-endpoint-served"
"""Metadata key under which a gateway may name the endpoint that served."""
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET = "x-gateway-destination-endpoint-subset"
"""Metadata under which a gateway names the endpoints a request may go to."""
DECISION_ID = "decision-id"
"""Metadata key that joins what follows to the decision."""
PREDICTED_TTFT = "predicted-ttft-ms"
"""Metadata key of the TTFT predicted where the request goes, in ms, for a header to the client."""
STREAM_ID = "stream-id"
"""Metadata key, told before there is a decision: it joins the end of a request that Envoy sent on
without waiting for one."""

KEY_PREFIX = "x-lodestar-"
POOL = "x-lodestar-pool"
POLICY = "x-lodestar-policy"
COST = "x-lodestar-cost"
TOLD_DECISION = "x-lodestar-decision"
TOLD_PREDICTED_TTFT = "x-lodestar-predicted-ttft-ms"
"""Headers of the response, where Envoy's file asks for them: what `explain` wants, and a time."""

METHOD = ":method"
PATH = ":path"
STATUS = ":status"
CONTENT_LENGTH = "content-length"
CONTENT_TYPE = "content-type"
CONTENT_ENCODING = "content-encoding"
RETRY_AFTER = "retry-after"
REQUEST_ID = "x-request-id"
TTFT_SLO_HEADERS = ("x-lodestar-ttft-slo-ms", "x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
"""The client's bound on TTFT: our name, llm-d's, and the older one of both llm-d and GAIE."""
TPOT_SLO_HEADERS = ("x-lodestar-tpot-slo-ms", "x-llm-d-slo-tpot-ms", "x-slo-tpot-ms")
"""The same for the time between output tokens."""

DROPPED_REASON = "x-llm-d-request-dropped-reason"
"""Header of our refusals, by llm-d's words."""

TEST_SELECTION = "test-epp-endpoint-selection"
TEST_SERVED = "x-conformance-test-served-endpoint"
TEST_ECHO = "x-echo-set-header"
"""Headers of the Gateway API conformance tests: where to go, who served, what to echo."""

OBJECTIVE_HEADERS = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
"""What the request is for, by llm-d's name and GAIE's: a setting gives each its priority."""
MODEL_REWRITE_HEADERS = ("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite")
"""The model to ask the engine for, instead of the one in the body: llm-d's name, and GAIE's."""

SESSION_HEADERS = (
    *("x-session-affinity", "x-claude-code-session-id", "x-qwen-code-session-id"),
    *("session-id", "session_id", "x-opencode-session", "x-amp-thread-id"),
)
"""By which coding agents name their session unasked: OpenCode and pi, Claude Code, Qwen Code, Codex
of two ages, OpenCode with its own models, Amp."""

ATTRIBUTES_NAMESPACE = "envoy.filters.http.ext_proc"
CLUSTER_NAME = "xds.cluster_name"
UPSTREAM_ADDRESS = "upstream.address"
RESPONSE_CODE = "response.code"

TAG_TTFT = "ttft_us"
TAG_DURATION = "e2e_us"
TAG_SERVED = "inst"
TAG_ATTEMPTS = "attempts"
TAG_DECISION = "decision"
TAG_STREAM = "stream"
TAG_FLAGS = "flags"
TAG_RETRY_AFTER = "retry_after"
"""Custom tags of the access log; envoy/envoy.yaml says what each holds."""
