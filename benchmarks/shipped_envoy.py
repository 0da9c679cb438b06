"""A shipped Envoy configuration, for the ports and engines of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lodestar_extproc.demo.bootstrap import LODESTAR, POOL, Ports
from lodestar_extproc.demo.stack import Configure

FILES = Path(__file__).parents[1] / "envoy"


def shipped(name: str) -> Configure:
    """What makes a configuration of the file *name* below `envoy/`."""
    return partial(_configured, FILES / name)


def _configured(
    file: Path, ports: Ports, engines: Sequence[tuple[str, str]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    config: dict[str, Any] = YAML(typ="safe").load(file)
    config["admin"]["address"] = _address(f"127.0.0.1:{ports.envoy_admin}")
    resources = config["static_resources"]
    resources["listeners"][0]["address"] = _address(f"127.0.0.1:{ports.listener}")
    clusters = {cluster["name"]: cluster for cluster in resources["clusters"]}
    _set_endpoints(clusters[LODESTAR], [(f"127.0.0.1:{ports.ext_proc}", "")])
    _set_endpoints(clusters[POOL], engines)
    clusters[POOL]["metadata"]["filter_metadata"]["lodestar"] |= settings
    return config


def _set_endpoints(cluster: dict[str, Any], engines: Sequence[tuple[str, str]]) -> None:
    entries = []
    for address, accelerator in engines:
        entry: dict[str, Any] = {"endpoint": {"address": _address(address)}}
        if accelerator:
            entry["metadata"] = {"filter_metadata": {"lodestar": {"accelerator": accelerator}}}
        entries.append(entry)
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": entries}]


def _address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
