"""CountedStack: `serve` and two engines that stay, an Envoy for each configuration, and a count.

How many decisions there were for how many requests, and what became of them, says whether a
configuration works; that an Envoy accepts it does not.
"""

from __future__ import annotations

import asyncio
import copy
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from envoy_process import EnvoyProcess, _set_endpoints, _socket, envoy_config
from ports import a_port
from process_stack import REQUEST_TIMEOUT, Engine, Service, get
from waiting import until

N_REQUESTS = 12
JSON = "application/json"
PATIENT = "10s"
"""A busy machine answers late; whether 0.5 s is enough is no question here."""
PATIENCE_S = 3.0
"""Where ends are told at all, they are within a second of the last answer."""


@dataclass(frozen=True)
class Count:
    """What became of *requests* that clients sent.

    Attributes:
        answered: with 200.
        generated: times that an engine was asked.
        decisions: that Lodestar made for them.
        as_chosen: decisions whose first choice served.
        timed: decisions whose first token was seen.
        left_open: decisions whose end was not told.
    """

    requests: int
    answered: int
    generated: int
    decisions: int
    as_chosen: int
    timed: int
    left_open: int

    @property
    def is_right(self) -> bool:
        """One decision a request, served as chosen, none left open, none generated twice."""
        told = (self.answered, self.generated, self.decisions, self.as_chosen, self.timed)
        return set(told) == {self.requests} and self.left_open == 0


class CountedStack:
    """`count()` starts an Envoy with a configuration, sends requests, and counts."""

    def __init__(self, folder: Path, service: Service, engines: list[Engine], port: int) -> None:
        self._folder = folder
        self._service = service
        self._engines = engines
        self._port = port
        self._n = 0

    async def count(
        self, config: dict[str, Any], *, n: int = N_REQUESTS, prompt: str = "x"
    ) -> Count:
        """What happens with *config*, whose engines and service are replaced by these."""
        self._n += 1
        folder = self._folder / str(self._n)
        folder.mkdir()
        async with EnvoyProcess(self._fitted(config), folder) as envoy:
            await self._warm(envoy)
            earlier = {decision["decision_id"] for decision in await self._decisions()}
            generated = await self._generated()
            answers = await self._send(f"{envoy.url}/v1/chat/completions", n, prompt)
            decided = await self._told_of(earlier)
            generated = await self._generated() - generated
        return Count(
            requests=n,
            answered=sum(status == 200 for status in answers),
            generated=generated,
            decisions=len(decided),
            as_chosen=sum(d["served"] == d["chosen"] for d in decided),
            timed=sum(d["ttft_s"] is not None for d in decided),
            left_open=sum(d["outcome"] is None for d in decided),
        )

    def _fitted(self, config: dict[str, Any]) -> dict[str, Any]:
        config = copy.deepcopy(config)
        config["admin"] = {"address": _socket("127.0.0.1", 0)}
        config.setdefault("node", {"id": "counted", "cluster": "counted"})
        resources = config["static_resources"]
        for listener in resources["listeners"]:
            listener["address"] = _socket("127.0.0.1", 0)
        for cluster in resources["clusters"]:
            if "lodestar" in cluster.get("metadata", {}).get("filter_metadata", {}):
                cluster["load_assignment"] = {"cluster_name": cluster["name"]}
                cluster["type"] = "STATIC"
                _set_endpoints(cluster, [engine.address for engine in self._engines])
            elif "lodestar" in cluster["name"] and "endpoints" in cluster["load_assignment"]:
                _set_endpoints(cluster, [f"127.0.0.1:{self._port}"])
                for check in cluster.get("health_checks", []):
                    check["timeout"] = PATIENT
        return config

    async def _warm(self, envoy: EnvoyProcess) -> None:
        """Until Envoy holds the service healthy, where it checks."""

        async def healthy() -> bool:
            page = json.loads(await envoy.admin("/clusters?format=json"))
            hosts = [
                host["health_status"]
                for cluster in page.get("cluster_statuses", [])
                for host in cluster.get("host_statuses", [])
            ]
            return not any(status.get("failed_active_health_check") for status in hosts)

        try:
            await until(healthy, 10.0)
        except AssertionError:
            return  # it is counted as it is

    async def _send(self, url: str, n: int, prompt: str) -> list[int]:
        async with aiohttp.ClientSession(timeout=REQUEST_TIMEOUT) as client:
            return await asyncio.gather(
                *(self._ask(client, url, f"{i} {prompt}") for i in range(n))
            )

    async def _ask(self, client: aiohttp.ClientSession, url: str, prompt: str) -> int:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": prompt}]}
        try:
            # A stream: a large body in one piece would hold up the event loop.
            whole, given = io.BytesIO(json.dumps(body).encode()), {"content-type": JSON}
            async with client.post(url, data=whole, headers=given) as response:
                await response.read()
                return response.status
        except aiohttp.ClientError:
            return 0

    async def _told_of(self, earlier: set[str]) -> list[dict[str, Any]]:
        """The decisions since *earlier*, once their ends are told, or in the end without."""

        async def new() -> list[dict[str, Any]]:
            return [d for d in await self._decisions() if d["decision_id"] not in earlier]

        async def ended() -> bool:
            return all(decision["outcome"] is not None for decision in await new())

        try:
            await until(ended, PATIENCE_S)
        except AssertionError:
            return await new()
        return await new()

    async def _decisions(self) -> list[dict[str, Any]]:
        page = await get(f"{self._service.url}/decisions?limit=256")
        return list(json.loads(page)["decisions"])

    async def _generated(self) -> int:
        return sum([len(await engine.tried_at_s()) for engine in self._engines])


@asynccontextmanager
async def counted_stack(folder: Path, **settings: Any) -> AsyncIterator[CountedStack]:
    """Two engines and `serve`, ready."""
    port, admin_port = a_port(), a_port()
    engines = [Engine(f"engine{i}", folder) for i in range(2)]
    addresses = [engine.address for engine in engines]
    config = envoy_config("envoy.yaml", extproc_port=port, engines=addresses)
    file = folder / "serve.json"
    file.write_text(json.dumps(config))
    service = Service(file, folder, admin_port)
    async with AsyncExitStack() as stack:
        for process in (*engines, service):
            stack.enter_context(process)
        for process in (*engines, service):
            await process.ready()
        yield CountedStack(folder, service, engines, port)
