"""probe(): what an engine says of itself: kind, version, models, cache, where its health is."""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from lodestar_extproc.config.pool import METRICS_PATHS, METRICS_PORTS
from lodestar_extproc.fleet.engine_metrics import parse
from lodestar_extproc.fleet.engine_names import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lodestar_extproc.endpoint import EndpointMetrics
    from lodestar_extproc.printable import printable
from lodestar_extproc.printable import printable
from lodestar_extproc.setup.engine_address import EngineAddress

HEALTH_PATHS = ("/health", "/v2/health/ready", "/healthz", "/v1/models")
"""vLLM's, SGLang's and TensorRT-LLM's; Triton's; those of proxies; what any OpenAI server has."""
VERSIONS = (("/version", "version"), ("/get_server_info", "version"), ("/v2", "version"))
"""Where vLLM and TensorRT-LLM, SGLang and Triton say their version."""
TIMEOUT_S = 5.0
"""For each question: an engine that is busy with a prompt answers late."""
DEFAULT_ENGINE = "vllm"


@dataclass(frozen=True, slots=True)
class ProbedEngine:
    """An engine and what it said.

    Attributes:
        problem: why it said nothing; empty where it answered.
        engine: whose metric names it uses; what is assumed where no page was read.
        health_path: the first that answers 200; empty where none does.
        models: names it serves.
    """

    address: EngineAddress
    problem: str = ""
    engine: str = DEFAULT_ENGINE
    version: str = ""
    models: tuple[str, ...] = ()
    health_path: str = ""
    has_metrics: bool = False
    kv_capacity_tokens: float | None = None
    cache_block_tokens: float | None = None


async def probe_all(
    addresses: Iterable[EngineAddress], ca_file: str | None = None
) -> list[ProbedEngine]:
    """Ask all of them at once; never raises for what an engine does."""
    context = ssl.create_default_context(cafile=ca_file)
    if ca_file is None:
        # As Envoy, which checks no certificate unless it is told by whom.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        return list(await asyncio.gather(*(_Probe(session, a).engine() for a in addresses)))


class _Probe:
    """The questions to one engine."""

    def __init__(self, session: aiohttp.ClientSession, address: EngineAddress) -> None:
        self._session = session
        self._address = address
        self._problem = ""

    async def engine(self) -> ProbedEngine:
        models = await self._json("/v1/models")
        health_path = await self._health_path()
        if not health_path and models is None:
            return ProbedEngine(self._address, self._problem or "it answers nothing that is known")
        engine, metrics = await self._metrics()
        return ProbedEngine(
            self._address,
            engine=engine or DEFAULT_ENGINE,
            version=await self._version(),
            models=_names_of(models),
            health_path=health_path,
            has_metrics=metrics is not None,
            kv_capacity_tokens=metrics.kv_capacity_tokens if metrics else None,
            cache_block_tokens=metrics.cache_block_tokens if metrics else None,
        )

    async def _health_path(self) -> str:
        for path in HEALTH_PATHS:
            if await self._get(self._address.url + path) is not None:
                return path
        return ""

    async def _metrics(self) -> tuple[str, EndpointMetrics | None]:
        """The kind of engine whose names stand on its page, and what they say."""
        for engine in ENGINES:
            port = METRICS_PORTS.get(engine, self._address.port)
            url = self._address.url.replace(f":{self._address.port}", f":{port}")
            page = await self._get(url + METRICS_PATHS.get(engine, "/metrics"))
            metrics = parse(page, engine) if page is not None else None
            if metrics is not None and metrics.running_requests is not None:
                return engine, metrics
        return "", None

    async def _version(self) -> str:
        for path, key in VERSIONS:
            said = await self._json(path)
            if isinstance(said, dict) and isinstance(said.get(key), str):
                return printable(said[key])
        return ""

    async def _json(self, path: str) -> Any:
        page = await self._get(self._address.url + path)
        try:
            return None if page is None else json.loads(page)
        except ValueError:
            return None

    async def _get(self, url: str) -> bytes | None:
        """What is answered with 200."""
        try:
            async with self._session.get(url) as response:
                body = await response.read()
                if response.status == 200:
                    return body
                self._problem = f"it answers {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._problem = str(error) or f"it does not answer in {TIMEOUT_S:g} s"
        return None


def _names_of(models: Any) -> tuple[str, ...]:
    """Of an OpenAI list of models, as they may stand in a comment: they are text of others."""
    entries = models.get("data") if isinstance(models, dict) else None
    named = entries if isinstance(entries, list) else []
    ids = [str(each["id"]) for each in named if isinstance(each, dict) and "id" in each]
    return tuple(map(printable, ids))
