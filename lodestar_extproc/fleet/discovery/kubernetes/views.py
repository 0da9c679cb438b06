"""Views: the members of what is watched, InferencePool, pods or Service, as collections change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Protocol

from lodestar_extproc.config import (
    InferencePoolRef,
    KubernetesSource,
    Member,
    PodSelector,
    ServiceRef,
)
from lodestar_extproc.fleet.discovery.kubernetes.api import Api
from lodestar_extproc.fleet.discovery.kubernetes.collection import Collection
from lodestar_extproc.fleet.discovery.kubernetes.members import PodMembers, slice_members
from lodestar_extproc.fleet.discovery.kubernetes.nodes import Nodes
from lodestar_extproc.fleet.discovery.kubernetes.objects import (
    PoolPorts,
    PoolSpec,
    SliceEndpoint,
    read_endpoint_slice,
    read_inference_pool,
)
from lodestar_extproc.fleet.discovery.kubernetes.role import ROLE_LABEL

Changed = Callable[[], None]
POOL_VERSIONS: Mapping[str, str] = MappingProxyType({"inference.networking.x-k8s.io": "v1alpha2"})
"""The version of InferencePools by their group, where it is not v1."""
_log = logging.getLogger(__name__)


class View(Protocol):
    """What is watched, as it was last heard."""

    def members(self) -> tuple[Member, ...] | None:
        """None until everything was heard once."""

    async def run(self) -> None:
        """Listen until cancelled."""


def view_of(api: Api, source: KubernetesSource, changed: Changed) -> View:
    """A view of what *source* names; *changed* is called whenever it may have changed."""
    match source.watched:
        case InferencePoolRef() as ref:
            return InferencePoolView(api, ref, source, changed)
        case PodSelector() as selector:
            spec = PoolSpec(selector.labels, PoolPorts(selector.ports))
            return PodsView(api, selector.namespace, spec, source, changed)
        case ServiceRef() as ref:
            return ServiceView(api, ref, source, changed)


class PodsView:
    """The ready pods of one selector."""

    def __init__(
        self, api: Api, namespace: str, spec: PoolSpec, source: KubernetesSource, changed: Changed
    ) -> None:
        path = f"/api/v1/namespaces/{namespace}/pods"
        self.spec = spec
        self._pods = Collection(api, path, changed, labels=spec.labels)
        self._nodes = Nodes(api, changed)
        self._members = PodMembers(self._nodes, source.defaults)
        self._heard = False
        self._emptied = False

    def members(self) -> tuple[Member, ...] | None:
        if not self._pods.synced:
            return None
        members = self._members.of(self._pods.objects, self.spec.ports)
        self._tell_if_none(members)
        self._heard = self._heard or not self._nodes.asking
        return members if self._heard else None

    def _tell_if_none(self, members: tuple[Member, ...]) -> None:
        """Once, where ready pods are there and none of them may be given a request."""
        n_ready = self._members.n_ready
        emptied = n_ready > 0 and not members and not self._nodes.asking
        if emptied and not self._emptied:
            _log.warning(
                "pods %s: %d are ready and none is an endpoint: by their %s, their active ports, "
                "or because none has the port %s",
                self.spec.labels,
                n_ready,
                ROLE_LABEL,
                ", ".join(map(str, self.spec.ports.serving)) or "(none named)",
            )
        self._emptied = emptied

    def expose(self, ports: PoolPorts) -> None:
        """The same pods on other ports."""
        self.spec = PoolSpec(self.spec.labels, ports)

    async def run(self) -> None:
        await _together(self._pods.run(), self._nodes.run())


class InferencePoolView:
    """The ready pods that an InferencePool selects, whatever it comes to select."""

    def __init__(
        self, api: Api, ref: InferencePoolRef, source: KubernetesSource, changed: Changed
    ) -> None:
        self._api = api
        self._ref = ref
        self._source = source
        self._changed = changed
        self._wake = asyncio.Event()
        api_version = POOL_VERSIONS.get(ref.group, "v1")
        path = f"/apis/{ref.group}/{api_version}/namespaces/{ref.namespace}/inferencepools"
        self._pools = Collection(api, path, self._wake.set, fields=f"metadata.name={ref.name}")
        self._pods: PodsView | None = None
        self._last: tuple[Member, ...] | None = None

    def members(self) -> tuple[Member, ...] | None:
        """While the pods of a new selector are not listed yet, those of the old one."""
        if self._pools.synced and self._pods is None:
            return ()
        if self._pods is not None and (found := self._pods.members()) is not None:
            self._last = found
        return self._last

    async def run(self) -> None:
        await _together(self._pools.run(), self._follow())

    async def _follow(self) -> None:
        """Watch the pods of the selector that holds now."""
        while True:
            spec = self._spec()
            if spec is None:
                self._pods = self._last = None
                self._changed()
                await self._woken()
                continue
            self._pods = PodsView(self._api, self._ref.namespace, spec, self._source, self._changed)
            async with _beside(self._pods.run()):
                await self._until_selector_is_not(spec.labels)

    async def _until_selector_is_not(self, labels: str) -> None:
        while True:
            await self._woken()
            latest = self._spec()
            if latest is None or latest.labels != labels:
                return
            if self._pods is not None:
                self._pods.expose(latest.ports)
            self._changed()

    async def _woken(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    def _spec(self) -> PoolSpec | None:
        found = self._pools.objects.get(self._ref.name)
        spec = None if found is None else read_inference_pool(found)
        if spec is None and self._pools.synced:
            _log.warning("%s is not there, or selects nothing: no endpoints", self._ref)
        return spec


class ServiceView:
    """The ready endpoints of a Service, from its EndpointSlices."""

    def __init__(
        self, api: Api, ref: ServiceRef, source: KubernetesSource, changed: Changed
    ) -> None:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{ref.namespace}/endpointslices"
        labels = f"kubernetes.io/service-name={ref.name}"
        self._ref = ref
        self._slices = Collection(api, path, changed, labels=labels)
        self._nodes = Nodes(api, changed)
        self._defaults = source.defaults
        self._ambiguous = False
        self._heard = False

    def members(self) -> tuple[Member, ...] | None:
        if not self._slices.synced:
            return None
        slices = self._slices.objects.values()
        found = [endpoint for each in slices for endpoint in read_endpoint_slice(each)]
        members = tuple(slice_members(self._on_port(found), self._nodes, self._defaults))
        self._heard = self._heard or not self._nodes.asking
        return members if self._heard else None

    async def run(self) -> None:
        await _together(self._slices.run(), self._nodes.run())

    def _on_port(self, found: list[SliceEndpoint]) -> list[SliceEndpoint]:
        wanted = self._ref.port
        named = [e for e in found if wanted in (e.port_name, str(e.port))] if wanted else found
        names = sorted({endpoint.port_name for endpoint in found})
        numbers = sorted({endpoint.port for endpoint in found})
        unclear = (bool(found) and not named) if wanted else len(names) > 1
        if unclear and not self._ambiguous:
            _log.error(
                "%s has the ports %s, which pods serve as %s: name the one that serves, as %s:%s",
                self._ref,
                ", ".join(names),
                ", ".join(map(str, numbers)),
                self._ref.name,
                names[0] or numbers[0],
            )
        self._ambiguous = unclear
        return [] if unclear else named


async def _together(*coroutines: Coroutine[None, None, None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for coroutine in coroutines:
            tasks.create_task(coroutine)


@asynccontextmanager
async def _beside(coroutine: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run it while the body runs; a failure of it ends the body."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(coroutine)
        yield
        task.cancel()
