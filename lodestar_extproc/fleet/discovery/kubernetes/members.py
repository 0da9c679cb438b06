"""Members: what Kubernetes objects come to as members of a pool, with their settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lodestar_extproc.config import EndpointSettings, Member
from lodestar_extproc.fleet.discovery.kubernetes.accelerator import accelerator, own_settings
from lodestar_extproc.fleet.discovery.kubernetes.api import Object
from lodestar_extproc.fleet.discovery.kubernetes.nodes import Nodes
from lodestar_extproc.fleet.discovery.kubernetes.objects import (
    Labels,
    Pod,
    PoolPorts,
    SliceEndpoint,
    read_pod,
)
from lodestar_extproc.fleet.discovery.kubernetes.role import active_ports, serves_clients

ANONYMOUS = EndpointSettings().accelerator
"""The accelerator of an endpoint that nothing is said of."""


class PodMembers:
    """Members for pods, each pod read once.

    Args:
        defaults: settings of pods that say nothing.
    """

    def __init__(self, nodes: Nodes, defaults: EndpointSettings) -> None:
        self._nodes = nodes
        self._defaults = defaults
        self._read: dict[str, _Read] = {}

    def of(self, pods: Mapping[str, Object], ports: PoolPorts) -> tuple[Member, ...]:
        """One for every serving port of every ready pod of *pods*, which are by name.

        A pod whose node is still being asked for its accelerator is left out, and so is one that
        serves no clients.
        """
        self._read = {name: self._read_again(name, found) for name, found in pods.items()}
        return tuple(
            member
            for read in self._read.values()
            if read.pod is not None and read.settings is not None
            for member in _on_ports(read.pod, read.settings, ports)
        )

    @property
    def n_ready(self) -> int:
        """Ready pods among those last read, whether they serve clients or not."""
        return sum(read.ready for read in self._read.values())

    def _read_again(self, name: str, found: Object) -> _Read:
        last = self._read.get(name)
        if last is not None and last.found is found and not last.pending:
            return last
        ready = read_pod(found)
        pod = ready if ready is not None and serves_clients(ready.labels) else None
        settings = None if pod is None else self._settings_of(pod)
        return _Read(found, pod, settings, ready=ready is not None)

    def _settings_of(self, pod: Pod) -> EndpointSettings | None:
        settings = own_settings(f"pod {pod.name}", pod.labels, pod.annotations, self._defaults)
        if settings.accelerator != ANONYMOUS:
            return settings
        name = accelerator((pod.labels, pod.node_selector), pod.devices)
        if name is None:
            labels = self._nodes.labels(pod.node)
            if labels is None:
                return None
            name = accelerator((labels,), pod.devices)
        return _on(settings, name)


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read in one object.

    Attributes:
        pod: None unless it is ready and serves clients.
        settings: None while the node is being asked.
    """

    found: Object
    pod: Pod | None
    settings: EndpointSettings | None
    ready: bool

    @property
    def pending(self) -> bool:
        return self.pod is not None and self.settings is None


def slice_members(
    endpoints: Iterable[SliceEndpoint], nodes: Nodes, defaults: EndpointSettings
) -> Iterator[Member]:
    """A member for every endpoint whose node is known, or never will be."""
    for endpoint in endpoints:
        labels: Labels | None = {}
        if defaults.accelerator == ANONYMOUS:
            labels = nodes.labels(endpoint.node)
        if labels is not None:
            settings = _on(defaults, accelerator((labels,)))
            yield Member(endpoint.ip, endpoint.port, settings)


def _on_ports(pod: Pod, settings: EndpointSettings, ports: PoolPorts) -> Iterator[Member]:
    metrics, health = (None if p is None else pod.port(p) for p in (ports.metrics, ports.health))
    if settings.metrics_port is None and metrics is not None:
        settings = dataclasses.replace(settings, metrics_port=metrics)
    numbers = map(pod.port, active_ports(pod.annotations, ports.serving))
    for number in dict.fromkeys(number for number in numbers if number is not None):
        yield Member(pod.ip, number, settings, health)


def _on(settings: EndpointSettings, accelerator_name: str | None) -> EndpointSettings:
    if accelerator_name is None:
        return settings
    return dataclasses.replace(settings, accelerator=accelerator_name)
