"""Envoy bootstraps made piece by piece, as Envoy accepts them, for tests of reading them."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML

EXTENSIONS = "type.googleapis.com/envoy.extensions"
EXT_PROC = f"{EXTENSIONS}.filters.http.ext_proc.v3.ExternalProcessor"
PER_ROUTE = f"{EXTENSIONS}.filters.http.ext_proc.v3.ExtProcPerRoute"
FILTER_CONFIG = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
MANAGER = f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
GRPC_LOG = f"{EXTENSIONS}.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"
HTTP_OPTIONS = f"{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions"
CHOOSES = {"receiving_namespaces": {"untyped": ["envoy.lb"]}}

Tree = dict[str, Any]


def address(host: str, port: int) -> Tree:
    return {"socket_address": {"address": host, "port_value": port}}


def endpoint(host: str, port: int, **more: Any) -> Tree:
    return {"endpoint": {"address": address(host, port)}, **more}


def cluster(name: str, *endpoints: Tree, **more: Any) -> Tree:
    made = {"name": name, "connect_timeout": "1s", "type": "STATIC", **more}
    if endpoints:
        assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": list(endpoints)}]}
        made.setdefault("load_assignment", assignment)
    return made


def engines(name: str = "engines", **more: Any) -> Tree:
    """A pool of two."""
    block = {"filter_metadata": {"lodestar": {"policy": "random"}}}
    members = (endpoint("127.0.0.1", 8000), endpoint("127.0.0.1", 8001))
    return cluster(name, *members, metadata=block, **more)


def grpc_cluster(name: str, port: int = 9002, host: str = "127.0.0.1", **more: Any) -> Tree:
    options = {"@type": HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
    extension = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    return cluster(name, endpoint(host, port), typed_extension_protocol_options=extension, **more)


MARKED = {"filter_metadata": {"lodestar": {"service": True}}}


def calls(name: str) -> Tree:
    return {"envoy_grpc": {"cluster_name": name}}


def ext_proc(name: str, target: str, *, chooses: bool = False, **more: Any) -> Tree:
    config: Tree = {"@type": EXT_PROC, "grpc_service": calls(target)}
    config["processing_mode"] = {"request_header_mode": "SEND", "request_body_mode": "BUFFERED"}
    if chooses:
        config["metadata_options"] = CHOOSES
    return {"name": name, "typed_config": config | more}


def grpc_log(target: str) -> Tree:
    common = {"log_name": "log", "transport_api_version": "V3", "grpc_service": calls(target)}
    return {"name": "log", "typed_config": {"@type": GRPC_LOG, "common_config": common}}


def route(target: str = "engines", prefix: str = "/", **more: Any) -> Tree:
    return {"match": {"prefix": prefix}, "route": {"cluster": target}, **more}


def route_table(*routes: Tree, **more: Any) -> Tree:
    host = {"name": "all", "domains": ["*"], "routes": list(routes)}
    return {"name": "table", "virtual_hosts": [host], **more}


def manager(*filters: Tree, table: Tree | None = None, logs: tuple[Tree, ...] = (), **more: Any):
    router = {
        "name": "router",
        "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"},
    }
    config = {
        "@type": MANAGER,
        "stat_prefix": "http",
        "http_filters": [*filters, router],
        "access_log": list(logs),
        **more,
    }
    if "rds" not in more and "scoped_routes" not in more:
        config["route_config"] = table or route_table(route())
    return config


def listener(config: Tree, name: str = "http", **more: Any) -> Tree:
    chain = {"filters": [{"name": "manager", "typed_config": config}]}
    return {"name": name, "address": address("127.0.0.1", 0), "filter_chains": [chain], **more}


def bootstrap(listeners: list[Tree], clusters: list[Tree], **more: Any) -> Tree:
    return {
        "node": {"id": "a", "cluster": "b"},
        "admin": {"address": address("127.0.0.1", 0)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        **more,
    }


def written(folder, document: Any, name: str = "envoy.yaml"):
    """A file with *document*."""
    path = folder / name
    with path.open("w") as file:
        YAML(typ="safe").dump(document, file)
    return path
