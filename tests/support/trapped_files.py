"""The shipped default file with one trap in it: for each rule of the doctor, one way or several."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from builders import DEFAULT_ENVOY_FILE
from envoy_process import cluster_of, connection_manager

Config = dict[str, Any]
_EXTENSIONS = "type.googleapis.com/envoy.extensions"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
WITHOUT_CURE = ("settings", "envoy", "whose_service", "no_route", "no_endpoint")
"""Rules whose traps only the writer of the file can cure."""
PER_ROUTE = f"{_EXTENSIONS}.filters.http.ext_proc.v3.ExtProcPerRoute"
ROUND_ROBIN = {
    "typed_extension_config": {
        "name": "envoy.load_balancing_policies.round_robin",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.load_balancing_policies.round_robin.v3.RoundRobin"
        },
    }
}


@dataclass(frozen=True)
class Trap:
    """One way into a trap.

    Attributes:
        rule: by which it is found.
        key: the end of the finding's key.
    """

    rule: str
    name: str
    edit: Callable[[Config], Any]
    key: str = ""

    def __str__(self) -> str:
        return f"{self.rule}-{self.name}"

    @property
    def config(self) -> Config:
        config = copy.deepcopy(DEFAULT)
        self.edit(config)
        # No two of them share what an edit put in.
        whole: Config = json.loads(json.dumps(config))
        return whole


DEFAULT: Config = YAML(typ="safe").load(DEFAULT_ENVOY_FILE)


def host(config: Config) -> Config:
    return connection_manager(config)["route_config"]["virtual_hosts"][0]


def route(config: Config) -> Config:
    return host(config)["routes"][-1]


def action(config: Config) -> Config:
    return route(config)["route"]


def retry_policy(config: Config) -> Config:
    return action(config)["retry_policy"]


def http_filters(config: Config) -> list[Config]:
    return connection_manager(config)["http_filters"]


def decide(config: Config) -> Config:
    return http_filters(config)[0]["typed_config"]


def observe(config: Config) -> Config:
    return http_filters(config)[1]["typed_config"]


def log(config: Config) -> Config:
    return connection_manager(config)["access_log"][0]


def log_config(config: Config) -> Config:
    return log(config)["typed_config"]["common_config"]


def pool(config: Config) -> Config:
    return cluster_of(config, "engines")


def service(config: Config) -> Config:
    return cluster_of(config, "lodestar")


def options(cluster: Config) -> Config:
    return cluster["typed_extension_protocol_options"][HTTP_OPTIONS]


def policies(config: Config) -> list[Config]:
    return pool(config)["load_balancing_policy"]["policies"]


def override(config: Config) -> Config:
    return policies(config)[0]["typed_extension_config"]["typed_config"]


def limits(cluster: Config) -> Config:
    return cluster["circuit_breakers"]["thresholds"][0]


def on_route(config: Config, **said: Any) -> None:
    """What the route says of the decision."""
    route(config)["typed_per_filter_config"] = {"lodestar.decide": {"@type": PER_ROUTE, **said}}


def to_the_host(config: Config) -> None:
    """Move the route's retry policy to its virtual host, which has another route, too."""
    host(config)["retry_policy"] = action(config).pop("retry_policy")
    other = {"match": {"prefix": "/other"}, "direct_response": {"status": 200}}
    host(config)["routes"].insert(0, other)


def put(place: Callable[[Config], Config], **values: Any) -> Callable[[Config], None]:
    return lambda config: place(config).update(copy.deepcopy(values))


def take(place: Callable[[Config], Config], *names: str) -> Callable[[Config], None]:
    def edit(config: Config) -> None:
        for name in names:
            del place(config)[name]

    return edit


def both(*edits: Callable[[Config], Any]) -> Callable[[Config], None]:
    def edit(config: Config) -> None:
        for each in edits:
            each(config)

    return edit


def small_listener(config: Config) -> None:
    """One with Envoy's own limit on what it buffers."""
    del config["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"]


def _second_pool(config: Config) -> None:
    other = copy.deepcopy(pool(config))
    other["name"] = other["load_assignment"]["cluster_name"] = "others"
    config["static_resources"]["clusters"].append(other)


def _asks_for(pool_name: str) -> Callable[[Config], None]:
    header = {"key": "x-lodestar-pool", "value": pool_name}
    return lambda config: on_route(config, overrides={"grpc_initial_metadata": [header]})


def _guardrail(config: Config) -> None:
    """Two services are asked, and nothing says which of them is Lodestar."""
    decide(config).pop("metadata_options")
    decide(config)["grpc_service"]["envoy_grpc"]["cluster_name"] = "judge"
    http_filters(config).insert(0, copy.deepcopy(http_filters(config)[0]))
    http_filters(config)[0] |= {"name": "guardrail"}
    decide(config)["grpc_service"]["envoy_grpc"]["cluster_name"] = "guardrail"
    del http_filters(config)[2], connection_manager(config)["access_log"]
    service(config)["name"] = "judge"
    guardrail = copy.deepcopy(cluster_of(config, "judge"))
    guardrail["name"] = "guardrail"
    endpoint = guardrail["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"]["port_value"] = 9003
    config["static_resources"]["clusters"].append(guardrail)


def _full_duplex(config: Config) -> None:
    """As Istio asks an endpoint picker: both bodies pass through Lodestar, and nothing is logged."""
    duplex = {"request_trailer_mode": "SEND", "response_trailer_mode": "SEND"}
    duplex |= dict.fromkeys(("request_header_mode", "response_header_mode"), "SEND")
    bodies = ("request_body_mode", "response_body_mode")
    decide(config)["processing_mode"] = duplex | dict.fromkeys(bodies, "FULL_DUPLEX_STREAMED")
    del http_filters(config)[1], connection_manager(config)["access_log"]


_HTTP = "common_http_protocol_options"
_METADATA = {"untyped": ["other"]}
_ERRORS_ONLY = {
    "status_code_filter": {
        "comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "none"}}
    }
}

TRAPS: tuple[Trap, ...] = (
    Trap(
        "settings",
        "unknown policy",
        put(lambda c: pool(c)["metadata"]["filter_metadata"]["lodestar"], policy="clever"),
    ),
    Trap("envoy", "unknown field", put(pool, no_such_field=1)),
    Trap("whose_service", "two alike", _guardrail),
    Trap("service_cluster", "deleted", lambda c: c["static_resources"]["clusters"].pop()),
    Trap(
        "ext_proc_filter",
        "both deleted",
        both(
            lambda c: http_filters(c).pop(1),
            lambda c: http_filters(c).pop(0),
            take(connection_manager, "access_log"),
        ),
    ),
    Trap("ext_proc_filter", "disabled", lambda c: http_filters(c)[0].update(disabled=True)),
    Trap(
        "asked_twice",
        "two decisions",
        lambda c: http_filters(c).insert(0, {**copy.deepcopy(http_filters(c)[0]), "name": "again"}),
    ),
    Trap(
        "processing_mode",
        "no headers",
        lambda c: decide(c)["processing_mode"].update(request_header_mode="SKIP"),
    ),
    Trap(
        "processing_mode",
        "no body",
        lambda c: decide(c)["processing_mode"].pop("request_body_mode"),
    ),
    Trap(
        "processing_mode",
        "no body on the route",
        lambda c: on_route(
            c,
            overrides={
                "processing_mode": {"request_header_mode": "SEND", "response_header_mode": "SKIP"}
            },
        ),
    ),
    Trap(
        "body_limit",
        "default",
        lambda c: c["static_resources"]["listeners"][0].pop("per_connection_buffer_limit_bytes"),
    ),
    Trap(
        "body_limit",
        "of the host",
        both(small_listener, put(host, per_request_buffer_limit_bytes=2 * 2**20)),
    ),
    Trap(
        "body_limit",
        "of the route",
        both(
            small_listener,
            put(host, request_body_buffer_limit=32 * 2**20),
            put(route, request_body_buffer_limit=2 * 2**20),
        ),
    ),
    Trap("message_timeout", "default", take(decide, "message_timeout")),
    Trap("message_timeout", "short", put(decide, message_timeout={"nanos": 100_000_000})),
    Trap(
        "max_message_timeout",
        "missing",
        both(
            take(decide, "max_message_timeout"),
            put(lambda c: pool(c)["metadata"]["filter_metadata"]["lodestar"], hold_limit_s=2),
        ),
    ),
    Trap(
        "max_message_timeout",
        "shorter than requests are held",
        put(lambda c: pool(c)["metadata"]["filter_metadata"]["lodestar"], hold_limit_s=5),
    ),
    Trap("failure_mode_allow", "decision", take(decide, "failure_mode_allow")),
    Trap("failure_mode_allow", "observer", take(observe, "failure_mode_allow")),
    Trap(
        "failure_mode_allow",
        "on the route",
        lambda c: on_route(c, overrides={"failure_mode_allow": False}),
    ),
    Trap("receiving_namespace", "none", take(decide, "metadata_options")),
    Trap(
        "receiving_namespace",
        "another",
        put(decide, metadata_options={"receiving_namespaces": _METADATA}),
    ),
    Trap(
        "receiving_namespace",
        "on the route",
        lambda c: on_route(c, overrides={"metadata_options": {"receiving_namespaces": _METADATA}}),
    ),
    Trap(
        "model_rewrites",
        "streamed",
        both(
            lambda c: decide(c)["processing_mode"].update(request_body_mode="STREAMED"),
            put(
                lambda c: pool(c)["metadata"]["filter_metadata"]["lodestar"],
                model_rewrites={"a": "b"},
            ),
        ),
    ),
    Trap("observer_missing", "deleted", lambda c: http_filters(c).pop(1)),
    Trap(
        "observer_missing",
        "sees nothing",
        lambda c: observe(c)["processing_mode"].pop("response_body_mode"),
    ),
    Trap("observer_waits", "waits", take(observe, "observability_mode")),
    Trap("forwarding_namespace", "none", take(observe, "metadata_options")),
    Trap("access_log", "deleted", take(connection_manager, "access_log")),
    Trap(
        "access_log",
        "file only",
        lambda c: connection_manager(c).update(
            access_log=[
                {
                    "name": "stdout",
                    "typed_config": {
                        "@type": f"{_EXTENSIONS}.access_loggers.stream.v3.StdoutAccessLog"
                    },
                }
            ]
        ),
    ),
    Trap(
        "access_log_filter",
        "errors only",
        lambda c: log(c).update(filter=copy.deepcopy(_ERRORS_ONLY)),
    ),
    Trap("answer_timers", "route default", take(action, "timeout")),
    Trap("answer_timers", "route timeout", put(action, timeout="30s")),
    Trap("answer_timers", "route idle", put(action, idle_timeout="20s")),
    Trap("answer_timers", "stream idle", put(connection_manager, stream_idle_timeout="20s")),
    Trap(
        "answer_timers",
        "max stream of the route",
        put(action, max_stream_duration={"max_stream_duration": "20s"}),
    ),
    Trap(
        "answer_timers",
        "max stream of the manager",
        put(connection_manager, **{_HTTP: {"max_stream_duration": "20s"}}),
    ),
    Trap(
        "answer_timers",
        "max stream of the cluster",
        lambda c: options(pool(c))[_HTTP].update(max_stream_duration="20s"),
    ),
    Trap(
        "answer_timers",
        "grpc-timeout",
        put(action, max_stream_duration={"grpc_timeout_header_max": "20s"}),
    ),
    Trap("answer_timers", "per try", put(retry_policy, per_try_timeout="3s")),
    Trap("answer_timers", "per try, idle", put(retry_policy, per_try_idle_timeout={"seconds": 3})),
    Trap(
        "answer_timers",
        "per try of the host",
        both(put(retry_policy, per_try_timeout="3s"), to_the_host),
    ),
    Trap("retries", "no policy", take(action, "retry_policy")),
    Trap("retries", "for nothing", take(retry_policy, "retry_on")),
    Trap("retries", "number 0", put(retry_policy, num_retries=0)),
    Trap(
        "retries",
        "no connect-failure",
        put(retry_policy, retry_on="refused-stream,retriable-status-codes"),
    ),
    Trap("previous_hosts", "none", take(retry_policy, "retry_host_predicate")),
    Trap(
        "previous_hosts",
        "none on the host",
        both(take(retry_policy, "retry_host_predicate"), to_the_host),
    ),
    Trap("retry_on_reset", "5xx", put(retry_policy, retry_on="5xx")),
    Trap(
        "retry_on_reset",
        "5xx of the host",
        both(put(retry_policy, retry_on="reset,connect-failure"), to_the_host),
    ),
    Trap(
        "generated_twice", "mirror", put(action, request_mirror_policies=[{"cluster": "engines"}])
    ),
    Trap("route_pool", "another pool", both(_second_pool, _asks_for("others"))),
    Trap("route_pool", "not told", both(_second_pool, take(decide, "request_attributes"))),
    Trap("no_route", "to another", put(action, cluster="lodestar")),
    Trap("no_endpoint", "none", put(pool, load_assignment={"cluster_name": "engines"})),
    Trap("service_cluster", "no endpoint", put(service, load_assignment={"cluster_name": "x"})),
    Trap("override_host", "no policy", take(pool, "load_balancing_policy")),
    Trap(
        "override_host",
        "old policy",
        both(take(pool, "load_balancing_policy"), put(pool, lb_policy="ROUND_ROBIN")),
    ),
    Trap("override_host", "not first", lambda c: policies(c).insert(0, copy.deepcopy(ROUND_ROBIN))),
    Trap(
        "override_host",
        "another key",
        lambda c: override(c).update(
            override_host_sources=[{"metadata": {"key": "envoy.lb", "path": [{"key": "other"}]}}]
        ),
    ),
    Trap(
        "header_override",
        "header",
        both(
            take(connection_manager, "early_header_mutation_extensions"),
            lambda c: override(c).update(
                override_host_sources=[{"header": "x-gateway-destination-endpoint"}]
            ),
        ),
    ),
    Trap("idle_timeout", "default", take(pool, "typed_extension_protocol_options")),
    Trap("idle_timeout", "long", lambda c: options(pool(c))[_HTTP].update(idle_timeout="60s")),
    Trap("pool_max_requests", "one unset", take(lambda c: limits(pool(c)), "max_connections")),
    Trap(
        "pool_max_requests",
        "empty",
        both(
            take(
                lambda c: limits(pool(c)), "max_connections", "max_pending_requests", "max_requests"
            )
        ),
    ),
    Trap("pool_max_retries", "default", take(lambda c: limits(pool(c)), "max_retries")),
    Trap("service_max_requests", "default", take(service, "circuit_breakers")),
    Trap("service_max_requests", "low", lambda c: limits(service(c)).update(max_requests=1000)),
    Trap(
        "service_http2",
        "http/1",
        lambda c: options(service(c)).update(explicit_http_config={"http_protocol_options": {}}),
    ),
    Trap("service_health_check", "none", take(service, "health_checks")),
    Trap(
        "service_health_interval",
        "default",
        lambda c: service(c)["health_checks"][0].pop("no_traffic_interval"),
    ),
    Trap("service_panic_threshold", "default", take(service, "common_lb_config")),
)


def another_replica(config: Config, host: str = "10.0.0.9") -> None:
    [locality] = service(config)["load_assignment"]["endpoints"]
    another = copy.deepcopy(locality["lb_endpoints"][0])
    another["endpoint"]["address"]["socket_address"]["address"] = host
    locality["lb_endpoints"].append(another)


def share_by(config: Config, url: str) -> None:
    pool(config)["metadata"]["filter_metadata"]["lodestar"]["share"] = url


HINTED: tuple[Trap, ...] = (
    Trap(
        "trusted_headers",
        "clients send them",
        lambda c: (
            pool(c)["metadata"]["filter_metadata"]["lodestar"].update(
                trusted_headers=["model_rewrite"]
            ),
            connection_manager(c)["early_header_mutation_extensions"][0]["typed_config"][
                "mutations"
            ].pop(),
        ),
    ),
    Trap(
        "not_asked_on_every_route",
        "one asks",
        lambda c: host(c)["routes"].insert(
            0,
            {
                **copy.deepcopy(route(c)),
                "match": {"prefix": "/v1/models"},
                "typed_per_filter_config": {
                    "lodestar.decide": {"@type": PER_ROUTE, "disabled": True}
                },
            },
        ),
    ),
    Trap(
        "answers_wait",
        "default",
        lambda c: decide(c)["processing_mode"].pop("response_header_mode"),
    ),
    Trap("observer_attributes", "none", take(observe, "response_attributes")),
    Trap("silent_for_minutes", "default", take(connection_manager, "stream_idle_timeout")),
    Trap("few_retries", "one", take(retry_policy, "num_retries")),
    Trap("few_retries", "not when busy", take(retry_policy, "retriable_status_codes")),
    Trap(
        "few_retries",
        "not when refused",
        put(retry_policy, retry_on="connect-failure,retriable-status-codes"),
    ),
    Trap("no_access_log", "full duplex", _full_duplex),
    Trap("access_log_tags", "none", take(log_config, "custom_tags")),
    Trap("access_log_interval", "default", take(log_config, "buffer_flush_interval")),
    Trap("pool_health_check", "none", take(pool, "health_checks")),
    Trap("connect_timeout", "default", take(pool, "connect_timeout")),
    Trap("replicas_share_nothing", "two replicas", another_replica),
    Trap("share_password_in_clear", "plain", lambda c: share_by(c, "redis://:secret@cache:6379")),
)
