"""Prober: asks every endpoint for its health, and publishes yes or no.

How many answers make an endpoint unhealthy is not its business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import aiohttp

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.poller import Poller

Publish = Callable[[str, bool, float], None]
"""Called with address, whether it is healthy, and the monotonic second of the answer."""


class Prober:
    """Sends GET to every endpoint that has a health URL; an answer of 2xx in time is healthy.

    Args:
        session: from `open_session`.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        publish: Publish,
        live: LiveSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._publish = publish
        self._live = live
        self._clock = clock
        self._poller = Poller(self._probe, interval_s=lambda: live.current.health_interval_s)

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Probe these from now on."""
        self._poller.set_endpoints(e for e in endpoints if e.health_url is not None)

    async def run(self) -> None:
        """Probe until cancelled."""
        await self._poller.run()

    async def _probe(self, endpoint: Endpoint) -> None:
        healthy = await self._answers(endpoint.health_url or "")
        self._publish(endpoint.address, healthy, self._clock())

    async def _answers(self, url: str) -> bool:
        timeout = aiohttp.ClientTimeout(total=self._live.current.health_timeout_s)
        request = self._session.get(url, timeout=timeout, allow_redirects=False)
        try:
            async with request as response:
                return 200 <= response.status < 300
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return False
