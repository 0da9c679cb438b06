"""Collection: the objects of one kind that match a query, kept in step with the API server.

It lists, watches from there on, and lists anew when told that its version is gone, and now and
then in any case. What may be listed and not watched is listed every few seconds. While the server
is away the objects stay as they were. It does not know what they mean.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from types import MappingProxyType

from lodestar_extproc.fleet.discovery.kubernetes.api import Api, ApiError, Gone, Object
from lodestar_extproc.fleet.discovery.kubernetes.objects import part, parts

WATCH_S = 60.0
"""The server ends a watch after this long; so a connection that died silently is missed for little
more, and an idle server is asked once a minute."""
RESYNC_S = 600.0
"""Everything is listed again this often, whatever the watch said."""
POLL_S = 5.0
"""Without a watch everything is listed this often, as Envoy resolves names: a pod that is gone is
found out sooner, by the request that fails."""
SHORT_WATCH_S = 1.0  # one that ended sooner brought nothing: pause before the next
PAGE_OBJECTS = 100
"""A pod is some 10 KB of JSON, and reading it holds up the loop that decides: 4 ms a page."""
# Doubled after each failure, so that a server that comes back is not met by a crowd.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
_HINTS: Mapping[int, str] = MappingProxyType(
    {
        401: "the service account's token is not accepted",
        403: "bind a Role that allows get, list and watch",
        404: "is its custom resource definition installed, in this version? Pools of v1alpha2 are "
        "read by --pool-group inference.networking.x-k8s.io",
    }
)
_log = logging.getLogger(__name__)


class Collection:
    """Objects by name.

    Args:
        path: of the collection: `/api/v1/namespaces/default/pods`.
        labels, fields: selectors; empty for all.
        changed: called after each change.

    Attributes:
        synced: they were listed at least once.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        changed: Callable[[], None],
        *,
        labels: str = "",
        fields: str = "",
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        resync_s: float = RESYNC_S,
    ) -> None:
        self.synced = False
        self._objects: dict[str, Object] = {}
        self._api = api
        self._path = path
        self._changed = changed
        self._query = {
            name: value
            for name, value in (("labelSelector", labels), ("fieldSelector", fields))
            if value
        }
        self._rng = rng or random.Random()
        self._sleep = sleep
        self._resync_s = resync_s
        self._version = ""
        self._failures = 0
        self._unwatchable_until_s = -math.inf

    @property
    def objects(self) -> Mapping[str, Object]:
        """As last heard, by name."""
        return MappingProxyType(self._objects)

    async def run(self) -> None:
        """Keep in step until cancelled; nothing that the server does ends it."""
        now_s = asyncio.get_running_loop().time
        listed_at_s = began_at_s = now_s()
        while True:
            try:
                if not self._version or began_at_s - listed_at_s > self._resync_s:
                    await self._list()
                    listed_at_s = now_s()
                if now_s() < self._unwatchable_until_s:
                    await self._sleep(POLL_S * self._rng.uniform(0.75, 1.25))
                    self._version = ""
                else:
                    await self._watch_if_allowed()
            except ApiError as error:
                self._tell(error)
            # A watch that ends as it should is followed by the next; one that ends at once, or
            # breaks, must not spin.
            if self._failures or (self._version and now_s() - began_at_s < SHORT_WATCH_S):
                await self._sleep(self._pause_s())
            began_at_s = now_s()

    async def _list(self) -> None:
        objects: dict[str, Object] = {}
        more: dict[str, str] = {}
        while True:
            page = await self._api.get(self._path, limit=PAGE_OBJECTS, **self._query, **more)
            objects |= _by_name(parts(page, "items"))
            meta = part(page, "metadata")
            if not (token := meta.get("continue")):
                break
            more = {"continue": token}
        self._version = str(meta.get("resourceVersion") or "")
        self._recovered()
        if objects != self._objects or not self.synced:
            self._objects, self.synced = objects, True
            self._changed()

    async def _watch_if_allowed(self) -> None:
        """Watch; where that is refused, note to list instead, until it is time to ask again."""
        try:
            await self._watch()
        except ApiError as error:
            if isinstance(error, Gone) or not 400 <= error.status < 500 or error.status == 429:
                raise
            first = self._unwatchable_until_s == -math.inf
            self._unwatchable_until_s = asyncio.get_running_loop().time() + self._resync_s
            level = logging.WARNING if first else logging.DEBUG
            hint = _HINTS.get(error.status, "it may be listed")
            _log.log(level, "Kubernetes: %s; listed every %g s instead (%s)", error, POLL_S, hint)

    async def _watch(self) -> None:
        """Take every event until the server ends the watch."""
        wait_s = WATCH_S * self._rng.uniform(0.75, 1.25)
        events = self._api.watch(
            self._path,
            wait_s=wait_s,
            resourceVersion=self._version,
            allowWatchBookmarks="true",
            **self._query,
        )
        async with aclosing(events):
            async for event in events:
                self._recovered()
                self._unwatchable_until_s = -math.inf
                self._take(event)
        self._recovered()

    def _take(self, event: Object) -> None:
        found = part(event, "object")
        meta = part(found, "metadata")
        self._version = str(meta.get("resourceVersion") or self._version)
        name = meta.get("name")
        match event.get("type"):
            case "ADDED" | "MODIFIED" if name:
                self._objects[name] = found
            case "DELETED" if name:
                self._objects.pop(name, None)
            case _:  # a bookmark tells no more than the version
                return
        self._changed()

    def _tell(self, error: ApiError) -> None:
        """Warn of the first failure of a row; of the rest only whoever wants to know."""
        if isinstance(error, Gone):
            self._version = ""
            _log.info("Kubernetes: %s; listing anew", error)
            return
        if error.status:  # it answered, and may refuse this version for ever
            self._version = ""
        level = logging.DEBUG if self._failures else logging.WARNING
        self._failures += 1
        hint = _HINTS.get(error.status, "what is known stays")
        _log.log(level, "Kubernetes: %s (%s)", error, hint)

    def _recovered(self) -> None:
        if self._failures:
            _log.info("Kubernetes: %s answers again", self._path)
        self._failures = 0

    def _pause_s(self) -> float:
        """Grows with each failure in a row; spread, so that replicas do not come all at once."""
        longest_s = min(FIRST_PAUSE_S * 2.0 ** min(self._failures, 10), LONGEST_PAUSE_S)
        return longest_s * self._rng.uniform(0.5, 1.0)


def _by_name(items: Iterable[Object]) -> dict[str, Object]:
    named = ((part(item, "metadata").get("name"), item) for item in items)
    return {str(name): item for name, item in named if name}
