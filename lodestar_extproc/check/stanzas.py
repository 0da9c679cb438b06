"""The pieces of Envoy configuration that cures put in; the same as in envoy/envoy.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from lodestar_extproc.names import (
    DECISION_ID,
    DESTINATION,
    METADATA_NAMESPACE,
    RESPONSE_CODE,
    TAG_RETRY_AFTER,
    TAG_TTFT,
    UPSTREAM_ADDRESS,
)

Stanza: TypeAlias = dict[str, object]

RETRY_ON = ("connect-failure", "refused-stream", "reset-before-request")
"""What cannot have begun on an engine."""

TAGS: Mapping[str, str] = MappingProxyType(
    {
        TAG_TTFT: "%COMMON_DURATION(US_TX_BEG:US_RX_BODY_BEG:us)%",
        TAG_RETRY_AFTER: "%RESP(RETRY-AFTER)%",
    }
)
"""What an entry of the access log says in tags only."""
MAX_REQUESTS = 65536
"""What cures set: more than any fleet of engines has in flight."""

_TYPES = "type.googleapis.com/envoy.extensions"
_BALANCING = "load_balancing_policies"


def decision_filter(cluster: str) -> Stanza:
    """The ext_proc filter that asks the service behind *cluster* for a choice."""
    config = {
        "@type": f"{_TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster}},
        "processing_mode": {
            "request_header_mode": "SEND",
            "request_body_mode": "BUFFERED",
            "response_header_mode": "SKIP",
        },
        "message_timeout": "0.5s",
        "max_message_timeout": "2.5s",
        "failure_mode_allow": True,
        "request_attributes": ["xds.cluster_name"],
        "metadata_options": {"receiving_namespaces": {"untyped": [METADATA_NAMESPACE]}},
    }
    return {"name": "lodestar.decide", "typed_config": config}


def observing_filter(cluster: str) -> Stanza:
    """The ext_proc filter that shows the service behind *cluster* answers as they pass."""
    config = {
        "@type": f"{_TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster}},
        "observability_mode": True,
        "failure_mode_allow": True,
        "processing_mode": {
            "request_header_mode": "SKIP",
            "response_header_mode": "SKIP",
            "response_body_mode": "STREAMED",
        },
        "response_attributes": [UPSTREAM_ADDRESS, RESPONSE_CODE],
        "metadata_options": {"forwarding_namespaces": {"untyped": [METADATA_NAMESPACE]}},
    }
    return {"name": "lodestar.observe", "typed_config": config}


def access_log(cluster: str) -> Stanza:
    """The log that tells the service behind *cluster* how requests ended."""
    common = {
        "log_name": "lodestar",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster}},
        "buffer_flush_interval": "0.1s",
        "custom_tags": tags(TAGS),
    }
    config = {
        "@type": f"{_TYPES}.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "common_config": common,
    }
    return {"name": "envoy.access_loggers.http_grpc", "typed_config": config}


def tags(values: Mapping[str, str]) -> list[Stanza]:
    """Custom tags of an access log."""
    return [{"tag": name, "value": value} for name, value in values.items()]


def only_decided() -> Stanza:
    """The filter of an access log by which only requests with a decision are told."""
    matcher = {
        "filter": METADATA_NAMESPACE,
        "path": [{"key": DECISION_ID}],
        "value": {"present_match": True},
    }
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def retry_policy() -> Stanza:
    return {
        "retry_on": ",".join((*RETRY_ON, "retriable-status-codes")),
        "retriable_status_codes": [503],
        "num_retries": 2,
        "host_selection_retry_max_attempts": 5,
        "retry_host_predicate": [previous_hosts()],
    }


def previous_hosts() -> Stanza:
    kind = f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    return {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {"@type": kind},
    }


def override_host() -> Stanza:
    """The balancing policy that takes the choice, and least_request where there is none."""
    fallback: Stanza = {"@type": f"{_TYPES}.{_BALANCING}.least_request.v3.LeastRequest"}
    config: Stanza = {
        "@type": f"{_TYPES}.{_BALANCING}.override_host.v3.OverrideHost",
        "override_host_sources": [metadata_source()],
        "fallback_policy": {"policies": [_policy("least_request", fallback)]},
    }
    return _policy("override_host", config)


def _policy(name: str, config: Stanza) -> Stanza:
    return {
        "typed_extension_config": {"name": f"envoy.{_BALANCING}.{name}", "typed_config": config}
    }


def metadata_source() -> Stanza:
    return {"metadata": {"key": METADATA_NAMESPACE, "path": [{"key": DESTINATION}]}}


def http_options(**options: object) -> Stanza:
    """A cluster's HTTP protocol options."""
    return {"@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions", **options}


def grpc_health_check() -> Stanza:
    return {
        "timeout": "0.3s",
        "interval": "0.5s",
        "no_traffic_interval": "0.5s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "grpc_health_check": {},
    }


def engine_health_check() -> Stanza:
    return {
        "timeout": "1s",
        "interval": "2s",
        "no_traffic_interval": "2s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/health"},
    }


def service_cluster(name: str, port: int) -> Stanza:
    """The cluster through which Envoy reaches the service on this machine."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    http2 = http_options(explicit_http_config={"http2_protocol_options": {}})
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "health_checks": [grpc_health_check()],
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {
            "thresholds": [{"max_pending_requests": MAX_REQUESTS, "max_requests": MAX_REQUESTS}]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
    }
