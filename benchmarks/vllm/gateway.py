"""The shipped gateway in front of given engines: Envoy and `serve`, both fresh and cold.

Or another router in their place.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from engines import EnginePlan
from ruamel.yaml import YAML

from lodestar_extproc.demo.processes import Processes, beside_python, free_ports
from lodestar_extproc.evaluation.load import SERVED_BY

ENVOY_FILE = Path(__file__).parents[2] / "envoy" / "envoy.yaml"


@dataclass(frozen=True)
class Gateway:
    """What to talk to.

    Attributes:
        url: of Envoy's listener, or of another router's.
        admin_url: of Lodestar's admin server; empty for another router.
    """

    url: str
    admin_url: str
    processes: Processes

    async def admin(self, path: str) -> Any:
        """JSON from Lodestar's admin server."""
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            return await (await session.get(self.admin_url + path)).json()


@asynccontextmanager
async def running_gateway(
    engines: Sequence[EnginePlan], settings: Mapping[str, Any], folder: Path
) -> AsyncIterator[Gateway]:
    """Start it and end it with the body.

    Args:
        settings: of the pool, over those of the shipped file.
        folder: for its configuration and output; it exists.
    """
    listener, envoy_admin, ext_proc, admin = free_ports(4)
    file = folder / "envoy.json"
    config = gateway_config(engines, settings, listener, envoy_admin, ext_proc)
    file.write_text(json.dumps(config, indent=1))
    admin_url = f"http://127.0.0.1:{admin}"
    serve = (sys.executable, "-m", "lodestar_extproc", "serve", "--envoy-config", str(file))
    envoy = (beside_python("envoy"), "--config-path", str(file), "--concurrency", "2")
    with Processes(folder) as processes:
        processes.start(
            "lodestar",
            [*serve, "--admin", f"127.0.0.1:{admin}", "--drain", "0", "--grace", "0.2"],
        )
        processes.start("envoy", [*envoy, "--log-level", "warning", "--use-dynamic-base-id"])
        async with aiohttp.ClientSession() as session:
            await processes.ready(session, f"{admin_url}/ready")
            await processes.ready(session, f"http://127.0.0.1:{envoy_admin}/ready")
        yield Gateway(f"http://127.0.0.1:{listener}", admin_url, processes)


@asynccontextmanager
async def running_vllm_router(
    engines: Sequence[EnginePlan], folder: Path
) -> AsyncIterator[Gateway]:
    """vLLM's own router, by its cache_aware as it comes, in front of *engines*."""
    port, prometheus = free_ports(2)
    command = (
        *(sys.executable, "-m", "vllm_router.launch_router", "--policy", "cache_aware"),
        *("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(prometheus)),
        *("--log-level", "warning", "--worker-urls", *(engine.url for engine in engines)),
    )
    with Processes(folder) as processes:
        processes.start("vllm_router", command)
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session:
            await processes.ready(session, f"{url}/health")
        yield Gateway(url, "", processes)


def gateway_config(
    engines: Sequence[EnginePlan],
    settings: Mapping[str, Any],
    listener: int,
    envoy_admin: int,
    ext_proc: int,
) -> dict[str, Any]:
    """The shipped envoy.yaml with our addresses; answers name the engine that gave them."""
    config = YAML(typ="safe").load(ENVOY_FILE)
    config["admin"]["address"] = _socket(envoy_admin)
    resources = config["static_resources"]
    resources["listeners"][0]["address"] = _socket(listener)
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    # Lodestar's account of a decision then names the request that we sent.
    manager["preserve_external_request_id"] = True
    manager["route_config"]["response_headers_to_add"] = [
        {"header": {"key": SERVED_BY, "value": "%UPSTREAM_REMOTE_ADDRESS%"}}
    ]
    for cluster in resources["clusters"]:
        members = [_member(ext_proc)]
        if cluster["name"] == "engines":
            members = [_member(each.port, each.kind) for each in engines]
            cluster["metadata"]["filter_metadata"]["lodestar"] |= settings
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": members}]
    return dict(config)


def _member(port: int, kind: str | None = None) -> dict[str, Any]:
    member: dict[str, Any] = {"endpoint": {"address": _socket(port)}}
    if kind is not None:
        member["metadata"] = {"filter_metadata": {"lodestar": {"accelerator": kind}}}
    return member


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
