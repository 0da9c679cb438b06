"""FakeApiServer: an HTTP stand-in for Kubernetes' API server, with the faults a real one has.

Lists in pages, watches with bookmarks and a history, selectors by equality, versions that grow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from kubernetes_asyncio import client

from lodestar_extproc.fleet.discovery.kubernetes.api import Api

PODS = "/api/v1/namespaces/default/pods"
ALPHA_POOLS = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/default/inferencepools"
POOLS = "/apis/inference.networking.k8s.io/v1/namespaces/default/inferencepools"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
NODES = "/api/v1/nodes"


@dataclass
class Change:
    version: int
    path: str
    kind: str
    old: dict | None
    new: dict


@dataclass
class FakeApiServer:
    """What tests change, and what they look at.

    Attributes:
        refuse: HTTP status instead of an answer, by path; `""` for every path.
        refuse_watch: HTTP status instead of a watch; 0 for none.
        gone_as_event: tell that a version is too old by an event, as a real server mostly does.
        bookmark_s: how often a watch is told the version.
        asked: path and query of every request.
    """

    objects: dict[str, dict[str, dict]] = field(default_factory=dict)
    version: int = 100
    oldest: int = 0
    refuse: dict[str, int] = field(default_factory=dict)
    refuse_watch: int = 0
    gone_as_event: bool = True
    bookmark_s: float = 60.0
    page_objects: int = 500
    token: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0
    _history: list[Change] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _cut: asyncio.Event = field(default_factory=asyncio.Event)
    _server: TestServer | None = None

    # -- what the cluster does ---

    def put(self, path: str, name: str, **parts) -> None:
        """Make or replace an object; *parts* are its metadata, spec, status and so on."""
        old = self.objects.setdefault(path, {}).get(name)
        self.version += 1
        meta = {"name": name, "resourceVersion": str(self.version)} | parts.pop("metadata", {})
        new = {"metadata": meta} | parts
        self.objects[path][name] = new
        self._tell(Change(self.version, path, "MODIFIED" if old else "ADDED", old, new))

    def delete(self, path: str, name: str) -> None:
        old = self.objects[path].pop(name)
        self.version += 1
        self._tell(Change(self.version, path, "DELETED", old, old))

    def forget(self) -> None:
        """Watches can go on from now only: whatever is older is 410 Gone."""
        self.version += 1
        self.oldest = self.version
        self._history.clear()

    def cut(self) -> None:
        """End every watch in the middle of a line, as a dying server does."""
        self._cut.set()
        self._cut = asyncio.Event()

    def say(self, line: bytes) -> None:
        """Send *line* to every watch."""
        self._tell(Change(self.version, "", line.decode(), None, {}))

    async def go(self) -> None:
        """Away: connections are refused and open ones cut."""
        self.cut()
        assert self._server is not None
        await self._server.close()

    async def come(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self.port = self.port or unused_port()
        self._server = TestServer(app, port=self.port)
        await self._server.start_server(shutdown_timeout=0.1)

    def _tell(self, change: Change) -> None:
        self._history.append(change)
        self._news.set()
        self._news = asyncio.Event()

    def watches(self, path: str) -> list[dict[str, str]]:
        return [query for asked, query in self.asked if asked == path and "watch" in query]

    def lists(self, path: str) -> list[dict[str, str]]:
        return [query for asked, query in self.asked if asked == path and "watch" not in query]

    # -- what a client hears ---

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.asked.append((request.path, query))
        status = self.refuse.get(request.path) or self.refuse.get("")
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            status = 401
        if status:
            return self._status(status, "refused on request")
        if self.refuse_watch and "watch" in query:
            return self._status(self.refuse_watch, "it may not be watched")
        if "watch" in query:
            return await self._watch(request, query)
        path, _, name = request.path.rpartition("/")
        if path == NODES:
            found = self.objects.get(NODES, {}).get(name)
            return web.json_response(found) if found else self._status(404, "no such node")
        return self._list(request.path, query)

    def _status(self, code: int, message: str) -> web.Response:
        body = {"kind": "Status", "status": "Failure", "code": code, "message": message}
        return web.json_response(body, status=code)

    def _list(self, path: str, query: dict[str, str]) -> web.Response:
        items = [o for o in self.objects.get(path, {}).values() if _selected(o, query)]
        first = int(query.get("continue", 0))
        last = first + min(int(query.get("limit", self.page_objects)), self.page_objects)
        meta = {"resourceVersion": str(self.version)}
        if last < len(items):
            meta["continue"] = str(last)
        return web.json_response({"metadata": meta, "items": items[first:last]})

    async def _watch(self, request: web.Request, query: dict[str, str]) -> web.StreamResponse:
        since = int(query["resourceVersion"])
        if since < self.oldest and not self.gone_as_event:
            return self._status(410, "too old resource version")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if since < self.oldest:
            status = {"kind": "Status", "code": 410, "message": "too old resource version"}
            await self._send(response, "ERROR", status)
            return response
        try:
            async with asyncio.timeout(float(query["timeoutSeconds"])):
                await self._follow(request.path, query, since, response)
        except TimeoutError:
            pass
        except ConnectionError:
            assert request.transport is not None
            request.transport.abort()
        return response

    async def _follow(self, path, query, since, response) -> None:
        cut, seen = self._cut, 0
        began = len(self._history)
        while True:
            news, history = self._news, self._history
            for number, change in enumerate(history[seen:], seen):
                if change.path:
                    await self._send_change(path, query, since, change, response)
                elif number >= began:
                    await response.write(change.kind.encode() + b"\n")
            seen = len(history)
            waits = [asyncio.ensure_future(e.wait()) for e in (news, cut)]
            done, _ = await asyncio.wait(
                waits, timeout=self.bookmark_s, return_when=asyncio.FIRST_COMPLETED
            )
            for wait in waits:
                wait.cancel()
            if cut.is_set():
                await response.write(b'{"type": "MODI')
                raise ConnectionError
            if not done and query.get("allowWatchBookmarks") == "true":
                meta = {"resourceVersion": str(self.version)}
                await self._send(response, "BOOKMARK", {"metadata": meta})

    async def _send_change(self, path, query, since, change, response) -> None:
        if change.path != path or change.version <= since:
            return
        was = change.old is not None and _selected(change.old, query)
        stays = change.kind != "DELETED" and _selected(change.new, query)
        if was and not stays:
            meta = change.new["metadata"] | {"resourceVersion": str(change.version)}
            await self._send(response, "DELETED", change.new | {"metadata": meta})
        elif stays:
            await self._send(response, "MODIFIED" if was else "ADDED", change.new)

    async def _send(self, response, kind, found) -> None:
        await response.write(json.dumps({"type": kind, "object": found}).encode() + b"\n")


def _selected(found: dict, query: dict[str, str]) -> bool:
    meta = found["metadata"]
    labels = meta.get("labels", {})
    wanted = [pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair]
    if any(labels.get(key) != value for key, value in wanted):
        return False
    fields = [pair.split("=", 1) for pair in query.get("fieldSelector", "").split(",") if pair]
    return all(key == "metadata.name" and meta["name"] == value for key, value in fields)


@asynccontextmanager
async def an_api_server() -> AsyncIterator[FakeApiServer]:
    server = FakeApiServer()
    await server.come()
    try:
        yield server
    finally:
        await server.go()


@asynccontextmanager
async def connected(server: FakeApiServer) -> AsyncIterator[Api]:
    """Through the real client library."""
    async with client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{server.port}")) as c:
        yield Api(c)


# -- objects, with defaults ---


def pod_parts(ip: str, *, ready: bool = True, leaving: bool = False, **changes) -> dict:
    """The parts of a pod; *changes* to labels, annotations, node, node_selector, ports or limits."""
    labels = {"app": "vllm"} | changes.get("labels", {})
    meta = {"labels": labels, "annotations": changes.get("annotations", {})}
    if leaving:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {
        "nodeName": changes.get("node", "node-1"),
        "containers": [
            {
                "resources": {"limits": changes.get("limits", {})},
                "ports": [
                    {"name": name, "containerPort": number}
                    for name, number in changes.get("ports", {}).items()
                ],
            }
        ],
    }
    if "node_selector" in changes:
        spec["nodeSelector"] = changes["node_selector"]
    if "affinity" in changes:
        spec["affinity"] = changes["affinity"]
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": meta,
        "spec": spec,
        "status": {"phase": "Running", "podIP": ip, "conditions": conditions},
    }


def pool_parts(*ports, labels: dict[str, str] | None = None) -> dict:
    """An InferencePool's spec; a port is a number, or a number and its role."""
    numbered = [(p, None) if isinstance(p, int) else p for p in ports or (8000,)]
    return {
        "spec": {
            "selector": {"matchLabels": {"app": "vllm"} if labels is None else labels},
            "targetPorts": [
                {"number": number} | ({"role": role} if role else {}) for number, role in numbered
            ],
            "endpointPickerRef": {"name": "lodestar", "port": {"number": 9002}},
        }
    }


def alpha_pool_parts(port: int = 8000) -> dict:
    """An InferencePool's spec as v1alpha2 writes it."""
    return {
        "spec": {
            "selector": {"app": "vllm"},
            "targetPortNumber": port,
            "extensionRef": {"name": "lodestar"},
        }
    }


def slice_parts(*endpoints: dict, service: str = "vllm", ports=(("http", 8000),)) -> dict:
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports],
    }


def node_parts(**labels: str) -> dict:
    return {"metadata": {"labels": labels}}
