"""One Envoy, several real services behind its one ext_proc cluster, and engines, all processes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envoy_process import EnvoyProcess, cluster_of, envoy_config, patient
from ports import a_port
from process_stack import Engine, Service, get
from waiting import until


@dataclass
class ReplicaStack:
    """What a test breaks, and looks at."""

    envoy: EnvoyProcess
    replicas: list[Service]
    engines: list[Engine]

    async def nothing_is_open(self) -> bool:
        """No replica counts any request as open."""
        return all([(await each.pool())["open_decisions"] == 0 for each in self.replicas])

    async def total(self, name: str) -> float:
        """A metric, summed over replicas and labels."""
        return sum([await each.metric(name) for each in self.replicas])

    async def series(self, line: str) -> float:
        """One series of a metric with its labels, summed over replicas."""
        pages = [await get(f"{each.url}/metrics") for each in self.replicas]
        lines = [each for page in pages for each in page.splitlines()]
        return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith(f"{line} "))


@asynccontextmanager
async def running_replicas(
    folder: Path,
    n: int = 3,
    *,
    n_engines: int = 2,
    edit: Callable[[dict[str, Any]], None] = patient,
    know_each_other: bool = True,
    file: str = "envoy.yaml",
    drain: str = "0.1",
    **settings: Any,
) -> AsyncIterator[ReplicaStack]:
    """*n* services that read the file that Envoy runs, with pool *settings* changed.

    Args:
        file: of the shipped ones; of `variants/standby.yaml` each replica has a priority.
        know_each_other: False for a file each that names that replica alone.
    """
    ports = [a_port() for _ in range(n)]
    async with AsyncExitStack() as stack:
        engines = [Engine(f"engine{i}", folder) for i in range(n_engines)]

        def edit_all(config: dict[str, Any]) -> None:
            edit(config)
            assignment = cluster_of(config, "lodestar")["load_assignment"]
            assignment["endpoints"] = _localities(ports, standby="standby" in file)
            block = cluster_of(config, "engines")["metadata"]["filter_metadata"]["lodestar"]
            block |= settings

        config = envoy_config(
            file,
            extproc_port=0,
            engines=[engine.address for engine in engines],
            edit=edit_all,
        )
        envoy = EnvoyProcess(config, folder)
        replicas = []
        for i, port in enumerate(ports):
            own = folder / f"replica{i}"
            own.mkdir()
            file = envoy.config_file if know_each_other else _alone(config, port, own)
            listen = ("--listen", f"127.0.0.1:{port}", "--drain", drain, "--grace", "1")
            replicas.append(Service(file, own, a_port(), *listen))
        for process in (*engines, *replicas):
            stack.enter_context(process)
        for process in (*engines, *replicas):
            await process.ready()
        await stack.enter_async_context(envoy)
        await until(lambda: envoy.asks("lodestar", len(replicas)))
        yield ReplicaStack(envoy, replicas, engines)


def _localities(ports: list[int], *, standby: bool) -> list[dict[str, Any]]:
    """All alike, or each in a priority of its own."""
    entries = [entry_of(port) for port in ports]
    if not standby:
        return [{"lb_endpoints": entries}]
    return [{"priority": i, "lb_endpoints": [entry]} for i, entry in enumerate(entries)]


def entry_of(port: int) -> dict[str, Any]:
    socket = {"address": "127.0.0.1", "port_value": port}
    return {"endpoint": {"address": {"socket_address": socket}}}


def _alone(config: dict[str, Any], port: int, folder: Path) -> Path:
    """The same file, in which *port* is the only replica."""
    own = json.loads(json.dumps(config))
    cluster_of(own, "lodestar")["load_assignment"]["endpoints"] = [
        {"lb_endpoints": [entry_of(port)]}
    ]
    file = folder / "envoy.json"
    file.write_text(json.dumps(own))
    return file
