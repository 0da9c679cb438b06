"""Stack: one policy's world: simulated engines, Lodestar and Envoy; all cold, all processes."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from lodestar_extproc.demo.bootstrap import Ports, bootstrap
from lodestar_extproc.demo.processes import Processes, beside_python, free_ports

Configure = Callable[[Ports, Sequence[tuple[str, str]], Mapping[str, Any]], Mapping[str, Any]]
"""Makes Envoy's configuration; `bootstrap` is one."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """The simulated engines.

    Attributes:
        accelerators: one an engine.
        first_port: of the engines, which take consecutive ports; 0 for any.
    """

    accelerators: tuple[str, ...]
    seed: int = 1
    first_port: int = 0

    @property
    def as_option(self) -> str:
        """As `simulate --instances` takes it: "a30:2,h100:1"."""
        kinds = dict.fromkeys(self.accelerators)
        return ",".join(f"{kind}:{self.accelerators.count(kind)}" for kind in kinds)


@dataclass(frozen=True, slots=True)
class Stack:
    """A running world; what to talk to.

    Attributes:
        url: of Envoy's listener.
        admin_url: of Lodestar's admin server.
        envoy_admin_url: of Envoy's.
    """

    url: str
    admin_url: str
    envoy_admin_url: str
    processes: Processes


@asynccontextmanager
async def running_stack(
    fleet: FleetPlan,
    settings: Mapping[str, Any],
    folder: Path,
    *,
    port: int = 0,
    configure: Configure = bootstrap,
) -> AsyncIterator[Stack]:
    """Start a world and end it with the body.

    Args:
        settings: the pool's block.
        folder: for configuration and output.
        port: of Envoy's listener; 0 for any.

    Raises:
        DemoError: a program is not installed, or did not start.
    """
    ports, engine_port = _ports(port, fleet)
    addresses = [f"127.0.0.1:{engine_port + i}" for i in range(len(fleet.accelerators))]
    config = folder / "envoy.json"
    config.write_text(json.dumps(configure(ports, _engines(addresses, fleet), settings), indent=1))
    admin_url = f"http://127.0.0.1:{ports.lodestar_admin}"
    envoy_admin_url = f"http://127.0.0.1:{ports.envoy_admin}"
    with Processes(folder) as processes:
        async with aiohttp.ClientSession() as session:
            for name, command in _commands(config, ports, engine_port, fleet).items():
                processes.start(name, command)
            for address in addresses:
                await processes.ready(session, f"http://{address}/health")
            await processes.ready(session, f"{admin_url}/ready")
            await processes.ready(session, f"{envoy_admin_url}/ready")
        yield Stack(f"http://127.0.0.1:{ports.listener}", admin_url, envoy_admin_url, processes)


def _ports(port: int, fleet: FleetPlan) -> tuple[Ports, int]:
    listener, envoy_admin, ext_proc, lodestar_admin, engines = free_ports(5)
    # Consecutive ports cannot be reserved; those above a free one are free as a rule.
    return (
        Ports(port or listener, envoy_admin, ext_proc, lodestar_admin),
        fleet.first_port or min(engines, 65_000 - len(fleet.accelerators)),
    )


def _engines(addresses: Sequence[str], fleet: FleetPlan) -> list[tuple[str, str]]:
    return list(zip(addresses, sorted_kinds(fleet.accelerators), strict=True))


def sorted_kinds(accelerators: Sequence[str]) -> list[str]:
    """Equal kinds side by side, as `simulate --instances` starts them.

    >>> sorted_kinds(["a30", "h100", "a30"])
    ['a30', 'a30', 'h100']
    """
    kinds = dict.fromkeys(accelerators)
    return [kind for kind in kinds for _ in range(list(accelerators).count(kind))]


def _commands(
    config: Path, ports: Ports, engine_port: int, fleet: FleetPlan
) -> dict[str, list[str]]:
    lodestar = [sys.executable, "-m", "lodestar_extproc"]
    return {
        "engines": [
            *lodestar,
            "simulate",
            *("--instances", fleet.as_option),
            *("--port", str(engine_port)),
            *("--seed", str(fleet.seed)),
        ],
        "lodestar": [
            *lodestar,
            "serve",
            *("--envoy-config", str(config)),
            *("--admin", f"127.0.0.1:{ports.lodestar_admin}"),
            *("--drain", "0"),
            *("--grace", "0.2"),
        ],
        "envoy": [
            beside_python("envoy"),
            *("--config-path", str(config)),
            *("--concurrency", "1"),
            *("--log-level", "warning"),
            "--use-dynamic-base-id",
        ],
    }
