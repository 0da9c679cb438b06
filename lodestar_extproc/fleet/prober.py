"""Prober: asks every endpoint for its health, and publishes what is wrong with it.

How many answers make an endpoint unhealthy is not its business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.engine_client import EngineClient, EngineSilent
from lodestar_extproc.fleet.poller import Poller
from lodestar_extproc.supervision import BackgroundTask, Supervisor

MAX_ANSWER_BYTES = 64 * 1024
"""Triton and trtllm-serve answer nothing, others a few words; more is no engine's."""
Publish = Callable[[str, str, float], None]
"""Called with address, what is wrong with it, empty for nothing, and the monotonic second of the
answer."""


class Prober:
    """Asks every endpoint that has a health URL, as the endpoint says.

    Args:
        client: by which engines are asked.
        supervisor: told of what should not happen.
    """

    def __init__(
        self,
        client: EngineClient,
        publish: Publish,
        live: LiveSettings,
        *,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._publish = publish
        self._live = live
        self._clock = clock
        self._poller = Poller(
            self._probe,
            interval_s=lambda: live.current.health_interval_s,
            task=BackgroundTask.PROBING,
            supervisor=supervisor,
        )

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Probe these from now on."""
        self._poller.set_endpoints(e for e in endpoints if e.health_url is not None)

    async def run(self) -> None:
        """Probe until cancelled."""
        await self._poller.run()

    async def _probe(self, endpoint: Endpoint) -> None:
        problem = await self._problem(endpoint)
        self._publish(endpoint.address, problem, self._clock())

    async def _problem(self, endpoint: Endpoint) -> str:
        """Why *endpoint* did not answer that all is well; empty where it did."""
        url, within_s = endpoint.health_url or "", self._live.current.health_timeout_s
        question = endpoint.health
        try:
            answer = await self._client.get(
                url,
                within_s=within_s,
                max_bytes=MAX_ANSWER_BYTES,
                tls=endpoint.tls,
                method=question.method,
                host=question.host,
            )
        except TimeoutError:
            return f"{url} did not answer within {within_s:g} s"
        except (EngineSilent, OSError, ValueError) as error:
            return str(error) or f"{url}: {type(error).__name__}"
        return "" if question.is_healthy(answer.status) else f"{url} answered {answer.status}"
