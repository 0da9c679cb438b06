"""What is read of the pools when the page is asked for, under the names of others."""

from __future__ import annotations

from lodestar_extproc.metrics.aliases.alias import EPP, EXTENSION, GAUGE, POOL, ROUTER, alias, named
from lodestar_extproc.metrics.aliases.names import SATURATION_LABELS

POOL_LABELS = ("name",)
FLOW_LABELS = ("fairness_id", "priority", "inference_pool")

KV_USAGE = alias(
    GAUGE, named(POOL, "average_kv_cache_utilization"), POOL_LABELS, "Mean over the endpoints."
)
KV_USAGE_SPREAD = alias(
    GAUGE,
    (EPP + "std_dev_kv_cache_utilization",),
    POOL_LABELS,
    "Its standard deviation.",
)
QUEUE_SIZE = alias(
    GAUGE,
    named(POOL, "average_queue_size"),
    POOL_LABELS,
    "Mean of the requests that wait in an engine.",
)
QUEUE_SIZE_SPREAD = alias(
    GAUGE, (EPP + "std_dev_queue_size",), POOL_LABELS, "Its standard deviation."
)
POOL_RUNNING = alias(
    GAUGE,
    named(POOL, "average_running_requests"),
    POOL_LABELS,
    "Mean of the requests that run in an engine.",
)
POOL_RUNNING_SPREAD = alias(
    GAUGE, (EPP + "std_dev_running_requests",), POOL_LABELS, "Its standard deviation."
)
READY = alias(
    GAUGE,
    ("inference_pool_ready_pods", ROUTER + "ready_endpoints", EPP + "ready_endpoints"),
    POOL_LABELS,
    "Endpoints that may be chosen.",
)
ENDPOINT_QUEUE = alias(
    GAUGE,
    (
        "inference_pool_per_pod_queue_size",
        ROUTER + "per_endpoint_queue_size",
        EPP + "per_endpoint_queue_size",
    ),
    ("name", "model_server_pod", "model_server_endpoint"),
    "Requests that wait in each engine.",
)
FLOW_QUEUE = alias(
    GAUGE,
    named(EXTENSION, "flow_control_queue_size"),
    FLOW_LABELS,
    "Requests that wait in all engines: most of those that others hold back wait there.",
)
FLOW_BYTES = alias(
    GAUGE,
    named(EXTENSION, "flow_control_queue_bytes"),
    FLOW_LABELS,
    "0: what is held here is not counted in bytes.",
)
SATURATION = alias(
    GAUGE,
    named(EXTENSION, "flow_control_pool_saturation"),
    SATURATION_LABELS,
    "Mean over the endpoints of the larger of waiting requests over 5 and KV usage over 0.8.",
)
POOL_ALIASES = (
    KV_USAGE,
    KV_USAGE_SPREAD,
    QUEUE_SIZE,
    QUEUE_SIZE_SPREAD,
    POOL_RUNNING,
    POOL_RUNNING_SPREAD,
    READY,
    ENDPOINT_QUEUE,
    FLOW_QUEUE,
    FLOW_BYTES,
    SATURATION,
)
"""What is read of the pools when the page is asked for."""
