"""The same configuration by discovery: listeners, routes, clusters and endpoints from files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from envoy_process import cluster_of, connection_manager

_KINDS = {
    "lds": "envoy.config.listener.v3.Listener",
    "rds": "envoy.config.route.v3.RouteConfiguration",
    "cds": "envoy.config.cluster.v3.Cluster",
    "eds": "envoy.config.endpoint.v3.ClusterLoadAssignment",
}


def by_discovery(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The bootstrap that is left of *config* when all else stands in files in *folder*."""
    config = copy.deepcopy(config)
    routes = connection_manager(config).pop("route_config")
    connection_manager(config)["rds"] = {
        "route_config_name": routes["name"],
        "config_source": _source(folder, "rds"),
    }
    engines = cluster_of(config, "engines")
    endpoints = engines.pop("load_assignment")
    engines |= {"type": "EDS", "eds_cluster_config": {"eds_config": _source(folder, "eds")}}
    static = config.pop("static_resources")
    _write(folder, "lds", static["listeners"])
    _write(folder, "rds", [routes])
    _write(folder, "cds", static["clusters"])
    _write(folder, "eds", [endpoints])
    sources = {f"{service}_config": _source(folder, service) for service in ("lds", "cds")}
    return config | {"dynamic_resources": sources}


def _source(folder: Path, service: str) -> dict[str, Any]:
    path = str(folder / f"{service}.json")
    return {"resource_api_version": "V3", "path_config_source": {"path": path}}


def _write(folder: Path, service: str, resources: list[dict[str, Any]]) -> None:
    kind = f"type.googleapis.com/{_KINDS[service]}"
    document = {"resources": [{"@type": kind, **resource} for resource in resources]}
    (folder / f"{service}.json").write_text(json.dumps(document))
