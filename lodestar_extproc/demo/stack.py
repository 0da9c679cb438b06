"""Stack: one policy's world: simulated engines, Lodestar and Envoy; all cold, all processes."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from lodestar_extproc.demo.bootstrap import Ports, bootstrap
from lodestar_extproc.demo.processes import Processes, beside_python

LODESTAR = (sys.executable, "-m", "lodestar_extproc")
ENGINE_IS_UP = re.compile(r"^\S+ +http://(\S+)$", re.MULTILINE)
LODESTAR_IS_UP = re.compile(r"serving Envoy on .*; admin on ([^\s;]+)")
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

    Each program takes a port that is free as it starts, and says which: one that was looked for
    beforehand may be another's by then. Envoy asks Lodestar through a socket in the file system.

    Args:
        settings: the pool's block.
        folder: for configuration and output.
        port: of Envoy's listener; 0 for any.

    Raises:
        DemoError: a program is not installed, or did not start.
    """
    # Short and our own: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="lodestar-") as short, Processes(folder) as processes:
        async with aiohttp.ClientSession() as session:
            processes.start("engines", _engines_command(fleet))
            addresses = await processes.said("engines", ENGINE_IS_UP, len(fleet.accelerators))
            at = Ports(port, 0, f"{short}/ext_proc", 0)
            config = folder / "envoy.json"
            config.write_text(
                json.dumps(configure(at, _engines(addresses, fleet), settings), indent=1)
            )
            processes.start("lodestar", _lodestar_command(config))
            (admin,) = await processes.said("lodestar", LODESTAR_IS_UP)
            processes.start("envoy", _envoy_command(config, Path(short) / "envoy_admin"))
            (envoy_admin,) = await processes.written("envoy", Path(short) / "envoy_admin")
            await processes.ready(session, f"http://{envoy_admin}/ready")
            listener = await _listener(session, f"http://{envoy_admin}")
        yield Stack(
            f"http://127.0.0.1:{listener}",
            f"http://{admin}",
            f"http://{envoy_admin}",
            processes,
        )


async def _listener(session: aiohttp.ClientSession, envoy_admin_url: str) -> int:
    """The port that Envoy's only listener was given."""
    async with session.get(f"{envoy_admin_url}/listeners?format=json") as response:
        (status,) = orjson.loads(await response.read())["listener_statuses"]
    return int(status["local_address"]["socket_address"]["port_value"])


def _engines(addresses: Sequence[str], fleet: FleetPlan) -> list[tuple[str, str]]:
    return list(zip(addresses, sorted_kinds(fleet.accelerators), strict=True))


def sorted_kinds(accelerators: Sequence[str]) -> list[str]:
    """Equal kinds side by side, as `simulate --instances` starts them.

    >>> sorted_kinds(["a30", "h100", "a30"])
    ['a30', 'a30', 'h100']
    """
    kinds = dict.fromkeys(accelerators)
    return [kind for kind in kinds for _ in range(list(accelerators).count(kind))]


def _engines_command(fleet: FleetPlan) -> list[str]:
    return [
        *LODESTAR,
        "simulate",
        *("--instances", fleet.as_option),
        *("--port", str(fleet.first_port)),
        *("--seed", str(fleet.seed)),
    ]


def _lodestar_command(config: Path) -> list[str]:
    return [
        *LODESTAR,
        "serve",
        *("--envoy-config", str(config)),
        *("--admin", "127.0.0.1:0"),
        *("--drain", "0"),
        *("--grace", "0.2"),
    ]


def _envoy_command(config: Path, says_admin_in: Path) -> list[str]:
    return [
        beside_python("envoy"),
        *("--config-path", str(config)),
        *("--admin-address-path", str(says_admin_in)),
        *("--concurrency", "1"),
        *("--log-level", "warning"),
        "--use-dynamic-base-id",
    ]
