"""What a real Envoy says of a file: its `/config_dump`, or that it refuses the file."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp

from lodestar_extproc.config.node import Node
from lodestar_extproc.config.schema import Kind

ENVOY = Path(sys.executable).parent / "envoy"
READY_TIMEOUT_S = 60.0
KINDS = {
    "bootstrap": Kind("envoy.config.bootstrap.v3.Bootstrap"),
    "listener": Kind("envoy.config.listener.v3.Listener"),
    "cluster": Kind("envoy.config.cluster.v3.Cluster"),
    "route_config": Kind("envoy.config.route.v3.RouteConfiguration"),
    "route_configuration": Kind("envoy.config.route.v3.RouteConfiguration"),
    "endpoint_config": Kind("envoy.config.endpoint.v3.ClusterLoadAssignment"),
}


class Refused(Exception):  # noqa: N818
    """Envoy does not start with the file; says why."""


async def envoy_dump(path: Path) -> dict[str, list[Node]]:
    """What an Envoy runs that was started with the file at *path*, by kind.

    Raises:
        Refused: it does not start with it.
    """
    admin_file = path.with_suffix(".admin")
    log = path.with_suffix(".log")
    command = [ENVOY, "-c", path, "--admin-address-path", admin_file, "--log-path", log]
    command += ["-l", "error", "--disable-hot-restart", "--concurrency", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        async with asyncio.timeout(READY_TIMEOUT_S), aiohttp.ClientSession() as session:
            while not (admin_file.exists() and ":" in admin_file.read_text()):
                if process.poll() is not None:
                    raise Refused(log.read_text(errors="replace"))
                await asyncio.sleep(0.01)
            url = f"http://{admin_file.read_text()}"
            while await _text(session, f"{url}/ready") != "LIVE\n":
                if process.poll() is not None:
                    raise Refused(log.read_text(errors="replace"))
                await asyncio.sleep(0.01)
            # A bad file of resources does not end Envoy: it goes on without.
            for line in (await _text(session, f"{url}/stats?filter=update_rejected")).splitlines():
                if not line.endswith(": 0"):
                    raise Refused(line)
            dump = json.loads(await _text(session, f"{url}/config_dump?include_eds"))
    finally:
        process.kill()
        process.wait()
    return {name: list(_found(dump, name, kind)) for name, kind in KINDS.items()}


async def _text(session: aiohttp.ClientSession, url: str) -> str:
    try:
        async with session.get(url) as response:
            return await response.text()
    except aiohttp.ClientError:
        return ""


def _found(value: Any, name: str, kind: Kind):
    """Everything under the key *name*, wherever it stands, that is no part of another."""
    if isinstance(value, list):
        for each in value:
            yield from _found(each, name, kind)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == name and isinstance(each, dict):
                yield Node(each, "config_dump", kind=kind)
            elif key not in KINDS:
                yield from _found(each, name, kind)
