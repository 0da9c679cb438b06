"""What Istio's control plane makes of our Gateway, VirtualService and EnvoyFilter, as a bootstrap.

The Envoy configuration of an ingress gateway, written down in the shape istiod gives it, and the
operations of an EnvoyFilter that ours uses, by the rules of its reference page.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

Config = dict[str, Any]
ENGINES = "outbound|8000||engines.default.svc.cluster.local"
MANAGER = "envoy.filters.network.http_connection_manager"
_TYPES = "type.googleapis.com/envoy.extensions"
_HCM = f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"


def gateway_config(engines: Sequence[str]) -> Config:
    """The ingress gateway for envoy/istio/envoy-filter/route.yaml, without the EnvoyFilter.

    `/other` is a route beside it, of another VirtualService.
    """
    retry_policy = {
        "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-status-codes",
        "num_retries": 2,
        "retriable_status_codes": [503],
        "host_selection_retry_max_attempts": "5",
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
    }
    to_engines = {"cluster": ENGINES, "timeout": "0s", "retry_policy": retry_policy}
    routes = [
        {"name": "llm", "match": {"prefix": "/v1/"}, "route": to_engines},
        {"name": "other", "match": {"prefix": "/other"}, "route": {"cluster": ENGINES}},
    ]
    manager = {
        "@type": _HCM,
        "stat_prefix": "outbound_0.0.0.0_8080",
        "normalize_path": True,
        "use_remote_address": True,
        "stream_idle_timeout": "0s",
        "route_config": {
            "name": "http.8080",
            "virtual_hosts": [{"name": "*:80", "domains": ["*"], "routes": routes}],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.cors",
                "typed_config": {"@type": f"{_TYPES}.filters.http.cors.v3.Cors"},
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            },
        ],
    }
    listener = {
        "name": "0.0.0.0_8080",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 8080}},
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{"filters": [{"name": MANAGER, "typed_config": manager}]}],
    }
    cluster = {
        "name": ENGINES,
        "type": "STATIC",
        "connect_timeout": "0.5s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {},
        "circuit_breakers": {"thresholds": [{"max_requests": 4294967295}]},
        "load_assignment": {
            "cluster_name": ENGINES,
            "endpoints": [{"lb_endpoints": [_endpoint(address) for address in engines]}],
        },
        "metadata": {"filter_metadata": {"istio": {"services": [{"name": "engines"}]}}},
    }
    return {
        "node": {"id": "router~10.0.0.9~gateway.istio-system", "cluster": "istio-ingressgateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _endpoint(address: str) -> Config:
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


def patched(config: Config, envoy_filter: Config) -> Config:
    """*config* with every patch applied, each of which has to find its place."""
    config = copy.deepcopy(config)
    for patch in envoy_filter["spec"]["configPatches"]:
        match, operation = patch["match"], patch["patch"]["operation"]
        value = copy.deepcopy(patch["patch"]["value"])
        assert match["context"] == "GATEWAY"
        assert _PATCHES[patch["applyTo"], operation](config, match, value), patch["applyTo"]
    return config


def _merge_listener(config: Config, match: Config, value: Config) -> bool:
    return _merge_all(_listeners(config, match), value)


def _merge_manager(config: Config, match: Config, value: Config) -> bool:
    assert match["listener"]["filterChain"]["filter"]["name"] == MANAGER
    return _merge_all(_managers(config, match), value)


def _insert_http_filter(config: Config, match: Config, value: Config) -> bool:
    wanted = match["listener"]["filterChain"]["filter"]["subFilter"]["name"]
    for manager in _managers(config, match):
        filters = manager["typed_config"]["http_filters"]
        at = next((i for i, f in enumerate(filters) if f["name"] == wanted), None)
        if at is not None:
            filters.insert(at, value)
            return True
    return False


def _merge_route(config: Config, match: Config, value: Config) -> bool:
    wanted = match["routeConfiguration"]["vhost"]["route"]["name"]
    hosts = [
        host
        for manager in _managers(config, {})
        for host in manager["typed_config"]["route_config"]["virtual_hosts"]
    ]
    return _merge_all([r for host in hosts for r in host["routes"] if r["name"] == wanted], value)


def _merge_cluster(config: Config, match: Config, value: Config) -> bool:
    wanted = match["cluster"]
    name = f"outbound|{wanted['portNumber']}||{wanted['service']}"
    clusters = config["static_resources"]["clusters"]
    return _merge_all([c for c in clusters if c["name"] == name], value)


def _add_cluster(config: Config, _match: Config, value: Config) -> bool:
    config["static_resources"]["clusters"].append(value)
    return True


_PATCHES = {
    ("LISTENER", "MERGE"): _merge_listener,
    ("NETWORK_FILTER", "MERGE"): _merge_manager,
    ("HTTP_FILTER", "INSERT_BEFORE"): _insert_http_filter,
    ("HTTP_ROUTE", "MERGE"): _merge_route,
    ("CLUSTER", "MERGE"): _merge_cluster,
    ("CLUSTER", "ADD"): _add_cluster,
}


def _listeners(config: Config, match: Config) -> list[Config]:
    port = match.get("listener", {}).get("portNumber")
    return [
        listener
        for listener in config["static_resources"]["listeners"]
        if port in (None, listener["address"]["socket_address"]["port_value"])
    ]


def _managers(config: Config, match: Config) -> list[Config]:
    chains = [c for listener in _listeners(config, match) for c in listener["filter_chains"]]
    return [f for chain in chains for f in chain["filters"] if f["name"] == MANAGER]


def _merge_all(places: Sequence[Config], value: Config) -> bool:
    for place in places:
        _merge(place, value)
    return bool(places)


def _merge(into: Config, value: Mapping[str, Any]) -> None:
    """As protobuf merges: messages field by field, lists appended, all else replaced."""
    for key, new in value.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(new, Mapping):
            _merge(old, new)
        elif isinstance(old, list) and isinstance(new, list):
            old.extend(copy.deepcopy(new))
        else:
            into[key] = copy.deepcopy(new)
