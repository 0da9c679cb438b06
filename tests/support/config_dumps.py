"""A config dump as a control plane's proxy shows it, made of a bootstrap that was written down."""

from __future__ import annotations

import copy
from typing import Any

from envoy_process import connection_manager
from lodestar_extproc.config.schema import camel_case

_ADMIN = "type.googleapis.com/envoy.admin.v3"
_CONFIG = "type.googleapis.com/envoy.config"


def istio_dump(config: dict[str, Any]) -> dict[str, Any]:
    """*config*, all of it by ADS as istiod sends it: routes by name, endpoints by EDS."""
    config = copy.deepcopy(config)
    manager = connection_manager(config)
    routes = manager.pop("route_config")
    ads = {"ads": {}, "resource_api_version": "V3"}
    manager["rds"] = {"route_config_name": routes["name"], "config_source": ads}
    assignments = []
    for cluster in config["static_resources"]["clusters"]:
        if cluster["name"].startswith("outbound|"):
            assignments.append(cluster.pop("load_assignment"))
            cluster |= {"type": "EDS", "eds_cluster_config": {"eds_config": ads}}
    static = config.pop("static_resources")
    bootstrap = config | {"dynamic_resources": {"lds_config": ads, "cds_config": ads}}
    bootstrap["node"] |= {
        "user_agent_build_version": {"version": {"major_number": 1, "minor_number": 38, "patch": 1}}
    }
    sections = {
        "BootstrapConfigDump": {"bootstrap": bootstrap},
        "ClustersConfigDump": {
            "dynamic_active_clusters": [
                {"version_info": "1", "cluster": _typed("cluster.v3.Cluster", cluster)}
                for cluster in static["clusters"]
            ]
        },
        "EndpointsConfigDump": {
            "dynamic_endpoint_configs": [
                {"endpoint_config": _typed("endpoint.v3.ClusterLoadAssignment", each)}
                for each in assignments
            ]
        },
        "ListenersConfigDump": {
            "dynamic_listeners": [
                {
                    "name": listener["name"],
                    "active_state": {"listener": _typed("listener.v3.Listener", listener)},
                }
                for listener in static["listeners"]
            ]
        },
        "RoutesConfigDump": {
            "dynamic_route_configs": [
                {"route_config": _typed("route.v3.RouteConfiguration", routes)}
            ]
        },
    }
    return {
        "configs": [{"@type": f"{_ADMIN}.{name}", **section} for name, section in sections.items()]
    }


def in_camel_case(value: Any) -> Any:
    """As istioctl writes it: the names of fields, not of metadata and extensions."""
    if isinstance(value, list):
        return [in_camel_case(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        camel_case(key) if "." not in key else key: in_camel_case(v) for key, v in value.items()
    }


def _typed(kind: str, resource: dict[str, Any]) -> dict[str, Any]:
    return {"@type": f"{_CONFIG}.{kind}", **resource}
