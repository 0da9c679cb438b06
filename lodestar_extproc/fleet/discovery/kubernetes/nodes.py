"""Nodes: the labels of the nodes that pods run on, each asked for once by name.

So a service account needs `get` on nodes and no more; one that lacks it gets none, and is told so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import MappingProxyType

from lodestar_extproc.fleet.discovery.kubernetes.api import Api, ApiError
from lodestar_extproc.fleet.discovery.kubernetes.objects import Labels, node_labels

FORBIDDEN = 403  # HTTP
ATTEMPTS, PAUSE_S = 3, 0.3
"""A pod waits for its node's answer; after so many it is served as any other."""
_NONE: Labels = MappingProxyType({})
_log = logging.getLogger(__name__)


class Nodes:
    """What is known of nodes.

    Args:
        changed: called when more is known.
    """

    def __init__(self, api: Api, changed: Callable[[], None]) -> None:
        self._api = api
        self._changed = changed
        self._labels: dict[str, Labels | None] = {}
        self._wanted: asyncio.Queue[str] = asyncio.Queue()
        self._forbidden = False

    def labels(self, name: str) -> Labels | None:
        """The labels of the node; None while they are being asked for."""
        if not name or self._forbidden:
            return _NONE
        if name not in self._labels:
            self._labels[name] = None
            self._wanted.put_nowait(name)
        return self._labels[name]

    @property
    def asking(self) -> bool:
        """Whether a node's labels are still to come."""
        return None in self._labels.values()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            name = await self._wanted.get()
            self._labels[name] = await self._ask(name)
            self._changed()

    async def _ask(self, name: str) -> Labels:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return node_labels(await self._api.get(f"/api/v1/nodes/{name}"))
            except ApiError as error:
                if error.status == FORBIDDEN:
                    self._forbid(error)
                    break
                if attempt == ATTEMPTS:
                    _log.warning("Kubernetes: %s; its accelerator is taken for the default", error)
                await asyncio.sleep(PAUSE_S)
        return _NONE

    def _forbid(self, error: ApiError) -> None:
        self._forbidden = True
        _log.warning(
            "Kubernetes: %s; accelerators are told apart by the pods' own labels only: "
            "bind a ClusterRole that allows to get nodes",
            error,
        )
