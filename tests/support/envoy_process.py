"""A real Envoy on free ports, from one of the shipped configurations."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
from ruamel.yaml import YAML

ENVOY_FILES = Path(__file__).parents[2] / "envoy"
ENVOY_BINARY = Path(sys.executable).parent / "envoy"
READY_TIMEOUT_S = 60.0


def envoy_config(
    name: str,
    *,
    extproc_port: int,
    engines: Sequence[str],
    edit: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """The shipped file *name*, with our ports: Envoy's own are 0, so that it takes free ones."""
    config = YAML(typ="safe").load(ENVOY_FILES / name)
    config["admin"]["address"] = _socket("127.0.0.1", 0)
    config["static_resources"]["listeners"][0]["address"] = _socket("127.0.0.1", 0)
    for cluster in config["static_resources"]["clusters"]:
        if cluster["name"] == "lodestar":
            _set_endpoints(cluster, [f"127.0.0.1:{extproc_port}"])
        elif cluster["name"] == "engines":
            _set_endpoints(cluster, engines)
    if edit is not None:
        edit(config)
    return config


def cluster_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in config["static_resources"]["clusters"] if c["name"] == name)


def connection_manager(config: dict[str, Any]) -> dict[str, Any]:
    listener = config["static_resources"]["listeners"][0]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def patient(config: dict[str, Any]) -> None:
    """Let the service be late, as all are on a busy machine: for tests of something else."""
    decide = connection_manager(config)["http_filters"][0]["typed_config"]
    decide["message_timeout"] = "10s"
    del cluster_of(config, "lodestar")["health_checks"]


class EnvoyProcess:
    """One Envoy; `async with` starts and always kills it."""

    def __init__(
        self, config: dict[str, Any], folder: Path, *, binary: Path = ENVOY_BINARY
    ) -> None:
        self.port = 0
        self.admin_port = 0
        self._folder = folder
        self._binary = binary
        self.config_file = folder / "envoy.json"
        self.config_file.write_text(json.dumps(config))
        self._log_file = folder / "envoy.log"
        self._admin_file = folder / "admin_address"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        command = [
            str(self._binary),
            *("-c", str(self.config_file)),
            *("--admin-address-path", str(self._admin_file)),
            *("--log-path", str(self._log_file)),
            *("--concurrency", "1"),
            *("-l", "warning"),
            "--disable-hot-restart",
        ]
        self._process = subprocess.Popen(command, cwd=self._folder)  # noqa: ASYNC220
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._ready()
        except BaseException:
            self._kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._kill()

    async def admin(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.text()

    async def stats(self, pattern: str) -> dict[str, int]:
        page = await self.admin(f"/stats?filter={pattern}&format=json")
        return {s["name"]: s["value"] for s in json.loads(page)["stats"] if "value" in s}

    async def asks(self, cluster: str, n: int = 1) -> bool:
        """Whether *n* of *cluster* are healthy to Envoy: on a busy machine a first check may fail."""
        name = f"cluster.{cluster}.membership_healthy"
        return (await self.stats(name)).get(name, n) >= n

    def log(self) -> str:
        return self._log_file.read_text() if self._log_file.exists() else ""

    async def _ready(self) -> None:
        while not self._admin_file.exists() or ":" not in self._admin_file.read_text():
            self._check_alive()
            await asyncio.sleep(0.02)
        self.admin_port = int(self._admin_file.read_text().rpartition(":")[2])
        while (await self.admin("/ready")).strip() != "LIVE":
            self._check_alive()
            await asyncio.sleep(0.02)
        listeners = json.loads(await self.admin("/listeners?format=json"))
        address = listeners["listener_statuses"][0]["local_address"]
        self.port = address["socket_address"]["port_value"]

    def _check_alive(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"Envoy ended with {self._process.returncode}:\n{self.log()}")

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _set_endpoints(cluster: dict[str, Any], addresses: Sequence[str]) -> None:
    hosts = (address.rpartition(":") for address in addresses)
    endpoints = [{"endpoint": {"address": _socket(host, int(port))}} for host, _, port in hosts]
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
