"""Features of Envoy that a file may use in any combination, put in by the dice."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envoy_files import (
    EXTENSIONS,
    FILTER_CONFIG,
    MARKED,
    PER_ROUTE,
    Tree,
    address,
    calls,
    cluster,
    endpoint,
    ext_proc,
    grpc_cluster,
    grpc_log,
    listener,
    manager,
    route,
    route_table,
)
from lodestar_extproc.config.schema import Kind

TYPES = "type.googleapis.com/envoy"
CHECK = {"timeout": "1s", "interval": "2.5s", "unhealthy_threshold": 2, "healthy_threshold": 1}


class Draft:
    """A bootstrap while it is made, and the files beside it."""

    def __init__(self, tree: Tree, dice: random.Random) -> None:
        self.tree = tree
        self.dice = dice
        self.files: dict[str, list[Tree]] = {}

    @property
    def static(self) -> Tree:
        return self.tree["static_resources"]

    @property
    def manager(self) -> Tree:
        return self.static["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]

    @property
    def route(self) -> Tree:
        return self.manager["route_config"]["virtual_hosts"][0]["routes"][0]

    @property
    def pool(self) -> Tree:
        return next(c for c in self.static["clusters"] if c["name"] == "engines")

    def duration(self) -> str:
        return f"{self.dice.choice((1, 0.25, 30, 0.001, 3600, 7.5))}s"


def guardrail(draft: Draft) -> None:
    guard = ext_proc("guardrail", "guardrail", failure_mode_allow=False)
    if draft.dice.random() < 0.5:
        draft.manager["http_filters"].insert(0, guard)
    else:
        config = manager(guard, table=route_table(route("guardrail")))
        draft.static["listeners"].append(listener(config, "guarded"))
    draft.static["clusters"].append(grpc_cluster("guardrail", 9100))


def audit_log(draft: Draft) -> None:
    draft.manager.setdefault("access_log", []).insert(0, grpc_log("audit"))
    draft.static["clusters"].append(grpc_cluster("audit", 9300))


def marked_service(draft: Draft) -> None:
    service = next(c for c in draft.static["clusters"] if c["name"] == "lodestar")
    service["metadata"] = MARKED


def disabled_and_enabled(draft: Draft) -> None:
    for entry in draft.manager["http_filters"][:-1]:
        entry["disabled"] = True
        enabled: Tree = {"@type": PER_ROUTE, "overrides": {}}
        if draft.dice.random() < 0.5:
            enabled = {"@type": FILTER_CONFIG, "config": enabled}
        draft.route.setdefault("typed_per_filter_config", {})[entry["name"]] = enabled


def overridden_mode(draft: Draft) -> None:
    mode = draft.dice.choice(("NONE", "STREAMED", "BUFFERED_PARTIAL"))
    overrides = {"processing_mode": {"request_body_mode": mode}, "grpc_service": calls("lodestar")}
    for entry in draft.manager["http_filters"]:
        if entry["name"] == "lodestar.decide" and not entry.get("disabled"):
            override = {"@type": PER_ROUTE, "overrides": overrides}
            draft.route.setdefault("typed_per_filter_config", {})["lodestar.decide"] = override


def timers(draft: Draft) -> None:
    action = draft.route["route"]
    action["timeout"], action["idle_timeout"] = draft.duration(), draft.duration()
    action["max_stream_duration"] = {"max_stream_duration": draft.duration()}
    action.setdefault("retry_policy", {"retry_on": "reset"})["per_try_timeout"] = draft.duration()
    action["hedge_policy"] = {"hedge_on_per_try_timeout": True}
    draft.pool["connect_timeout"] = draft.duration()


def priorities(draft: Draft) -> None:
    statuses = ("UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "DEGRADED")
    levels = draft.dice.choice((1, 2, 3))
    draft.pool.pop("eds_cluster_config", None)
    draft.pool["type"] = "STATIC"
    draft.pool["load_assignment"] = {
        "cluster_name": "engines",
        "policy": {"overprovisioning_factor": draft.dice.choice((100, 140, 200))},
        "endpoints": [
            {
                "priority": level,
                "lb_endpoints": [
                    endpoint(
                        f"10.0.{level}.{i + 1}",
                        8000 + i,
                        health_status=draft.dice.choice(statuses),
                        load_balancing_weight=draft.dice.randint(1, 5),
                    )
                    for i in range(draft.dice.randint(1, 3))
                ],
            }
            for level in range(levels)
        ],
    }


def health_path(draft: Draft) -> None:
    statuses = [{"start": 200, "end": draft.dice.choice((201, 205, 300))}]
    http = {"path": "/v1/models", "host": "vllm", "expected_statuses": statuses}
    draft.pool["health_checks"] = [CHECK | {"http_health_check": http, "alt_port": 8081}]


def tls(draft: Draft) -> None:
    context = {"@type": f"{EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "vllm"}
    draft.pool["transport_socket"] = {"name": "tls", "typed_config": context}


def names(draft: Draft) -> None:
    members = [endpoint("vllm.invalid", 8000)]
    draft.pool.pop("eds_cluster_config", None)
    draft.pool["load_assignment"] = {
        "cluster_name": "engines",
        "endpoints": [{"lb_endpoints": members}],
    }
    family = draft.dice.choice(("AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL"))
    draft.pool["type"] = draft.dice.choice(("STRICT_DNS", "LOGICAL_DNS"))
    draft.pool["dns_lookup_family"] = family
    draft.pool["dns_refresh_rate"] = "7.5s"
    draft.pool["respect_dns_ttl"] = True
    draft.pool["typed_dns_resolver_config"] = {
        "name": "cares",
        "typed_config": {
            "@type": f"{EXTENSIONS}.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [address("127.0.0.1", 1)],
        },
    }


def weighted(draft: Draft) -> None:
    entries = [{"name": "engines", "weight": 90}, {"name": "spare", "weight": 10}]
    del draft.route["route"]["cluster"]
    draft.route["route"]["weighted_clusters"] = {"clusters": entries}
    draft.static["clusters"].append(cluster("spare", endpoint("127.0.0.1", 8009)))


def behind_a_matcher(draft: Draft) -> None:
    """The deciding filter runs where a header says so."""
    for entry in draft.manager["http_filters"]:
        if entry["name"] == "lodestar.decide" and "typed_config" in entry:
            kind = f"{EXTENSIONS}.filters.http.composite.v3"
            decide = {"name": "decide", "typed_config": entry["typed_config"]}
            action = {"@type": f"{kind}.ExecuteFilterAction", "typed_config": decide}
            header = {
                "@type": f"{TYPES}.type.matcher.v3.HttpRequestHeaderMatchInput",
                "header_name": "x-llm",
            }
            predicate = {
                "input": {"name": "header", "typed_config": header},
                "value_match": {"exact": "true"},
            }
            on_match = {"action": {"name": "run", "typed_config": action}}
            matcher = {"predicate": {"single_predicate": predicate}, "on_match": on_match}
            entry["typed_config"] = {
                "@type": f"{EXTENSIONS}.common.matching.v3.ExtensionWithMatcher",
                "extension_config": {
                    "name": "composite",
                    "typed_config": {"@type": f"{kind}.Composite"},
                },
                "xds_matcher": {"matcher_list": {"matchers": [matcher]}},
            }


def filter_in_a_file(draft: Draft) -> None:
    for entry in draft.manager["http_filters"]:
        if entry["name"] == "lodestar.decide":
            kind = f"{TYPES}.config.core.v3.TypedExtensionConfig"
            config = entry.pop("typed_config")
            named = {"name": entry["name"], "typed_config": config}
            draft.files["ecds.yaml"] = [{"@type": kind, **named}]
            entry["config_discovery"] = {
                "config_source": _file("ecds.yaml"),
                "type_urls": [config["@type"]],
            }


def scoped_routes(draft: Draft) -> None:
    table = draft.manager.pop("route_config")
    key = {"fragments": [{"string_key": "all"}]}
    builder = {"header_value_extractor": {"name": "x-scope", "index": 0}}
    scope = {"name": "scope", "route_configuration": table, "key": key}
    draft.manager["scoped_routes"] = {
        "name": "scopes",
        "scope_key_builder": {"fragments": [builder]},
        "rds_config_source": {"ads": {}, "resource_api_version": "V3"},
        "scoped_route_configurations_list": {"scoped_route_configurations": [scope]},
    }


def routes_in_a_file(draft: Draft) -> None:
    if "route_config" not in draft.manager:
        return
    table = draft.manager.pop("route_config")
    draft.files["rds.yaml"] = [{"@type": f"{TYPES}.config.route.v3.RouteConfiguration", **table}]
    draft.manager["rds"] = {"route_config_name": table["name"], "config_source": _file("rds.yaml")}


def clusters_in_a_file(draft: Draft) -> None:
    kind = f"{TYPES}.config.cluster.v3.Cluster"
    draft.files["cds.yaml"] = [{"@type": kind, **draft.pool}]
    draft.static["clusters"].remove(draft.pool)
    if "route_config" in draft.manager:
        draft.manager["route_config"]["validate_clusters"] = False
    draft.tree.setdefault("dynamic_resources", {})["cds_config"] = _file("cds.yaml")


def listeners_in_a_file(draft: Draft) -> None:
    kind = f"{TYPES}.config.listener.v3.Listener"
    draft.files["lds.yaml"] = [{"@type": kind, **each} for each in draft.static.pop("listeners")]
    draft.tree.setdefault("dynamic_resources", {})["lds_config"] = _file("lds.yaml")


def endpoints_in_a_file(draft: Draft) -> None:
    if draft.pool["type"] != "STATIC":
        return
    assignment = draft.pool.pop("load_assignment")
    kind = f"{TYPES}.config.endpoint.v3.ClusterLoadAssignment"
    draft.files["eds.yaml"] = [{"@type": kind, **assignment}]
    draft.pool["type"] = "EDS"
    draft.pool["eds_cluster_config"] = {"eds_config": _file("eds.yaml")}


def _file(name: str) -> Tree:
    # The folder is put in when it is known.
    return {"path_config_source": {"path": f"FOLDER/{name}"}, "resource_api_version": "V3"}


FEATURES: tuple[Callable[[Draft], None], ...] = (
    guardrail,
    audit_log,
    marked_service,
    disabled_and_enabled,
    overridden_mode,
    timers,
    priorities,
    health_path,
    tls,
    names,
    weighted,
    behind_a_matcher,
    filter_in_a_file,
    scoped_routes,
    endpoints_in_a_file,
    routes_in_a_file,
    clusters_in_a_file,
    listeners_in_a_file,
)
"""In the order they are put in: what moves a part into a file comes after what changes it."""

RESOURCES = Kind("envoy.service.discovery.v3.DiscoveryResponse")


def a_draft(tree: Tree, dice: random.Random) -> Draft:
    """*tree* with a few features, with ports that are free."""
    draft = Draft(tree, dice)
    tree["admin"] = {"address": address("127.0.0.1", 0)}
    for each in draft.static["listeners"]:
        each["address"] = address("127.0.0.1", 0)
    chosen = dice.sample(range(len(FEATURES)), dice.randint(1, 5))
    for number in sorted(chosen):
        FEATURES[number](draft)
    return draft


def in_folder(value: Any, folder: Path) -> Any:
    """*value* with the folder of its files."""
    if isinstance(value, dict):
        return {key: in_folder(each, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [in_folder(each, folder) for each in value]
    return value.replace("FOLDER", str(folder)) if isinstance(value, str) else value
