"""Where endpoints come from: the Envoy configuration, DNS, watched files, Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.config import Pool, Resolution
from lodestar_extproc.fleet.discovery.config_file import watch_config
from lodestar_extproc.fleet.discovery.dns import watch_dns
from lodestar_extproc.fleet.discovery.eds import watch_eds
from lodestar_extproc.fleet.discovery.kubernetes import NotConnected, watch_kubernetes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lodestar_extproc.endpoint import Endpoint

__all__ = ["NotConnected", "discover", "watch_config"]


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
