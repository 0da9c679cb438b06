"""Where endpoints come from: the Envoy configuration, DNS, watched files, Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.config import Pool, Resolution
from lodestar_extproc.fleet.discovery.config_file import watch_config
from lodestar_extproc.fleet.discovery.dns import watch_dns
from lodestar_extproc.fleet.discovery.eds import watch_eds
from lodestar_extproc.fleet.discovery.kubernetes import (
    NotConnected,
    require_api_server,
    watch_kubernetes,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from lodestar_extproc.endpoint import Endpoint

__all__ = ["NotConnected", "discover", "require_sources", "watch_config"]


async def require_sources(pools: Iterable[Pool]) -> None:
    """Find out at the start what no waiting will mend.

    Raises:
        NotConnected: endpoints are to come from Kubernetes, and there are no credentials for it.
    """
    if any(pool.kubernetes is not None for pool in pools):
        await require_api_server()


def discover(pool: Pool) -> AsyncGenerator[tuple[Endpoint, ...], None]:
    """All endpoints of *pool*: once at once, and again whenever they change.

    The first answer is empty where nothing is known yet; Kubernetes gives it once everything was
    listed. It ends where nothing can change.
    Close it (`aclose`) or cancel its task to stop watching.
    """
    if pool.kubernetes is not None:
        return watch_kubernetes(pool, pool.kubernetes)
    if pool.eds is not None:
        return watch_eds(pool, pool.eds)
    if pool.resolution is Resolution.STATIC:
        return _once(pool)
    return watch_dns(pool)


async def _once(pool: Pool) -> AsyncGenerator[tuple[Endpoint, ...], None]:
    yield pool.endpoints
