"""Members: what Kubernetes objects come to as members of a pool, with their settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from lodestar_extproc.config import EndpointSettings, Member
from lodestar_extproc.fleet.discovery.kubernetes.accelerator import accelerator, own_settings
from lodestar_extproc.fleet.discovery.kubernetes.nodes import Nodes
from lodestar_extproc.fleet.discovery.kubernetes.objects import (
    Labels,
    Pod,
    PoolPorts,
    SliceEndpoint,
)

ANONYMOUS = EndpointSettings().accelerator
"""The accelerator of an endpoint that nothing is said of."""


class PodMembers:
    """Members for pods, made once for each.

    Args:
        defaults: settings of pods that say nothing.
    """

    def __init__(self, nodes: Nodes, defaults: EndpointSettings) -> None:
        self._nodes = nodes
        self._defaults = defaults
        self._settings: dict[str, tuple[Pod, EndpointSettings]] = {}

    def of(self, pods: Iterable[Pod], ports: PoolPorts) -> tuple[Member, ...]:
        """One for every serving port of every pod whose accelerator is known, or never will be."""
        latest: dict[str, tuple[Pod, EndpointSettings]] = {}
        members: list[Member] = []
        for pod in pods:
            settings = self._settings_of(pod)
            if settings is not None:
                latest[pod.name] = (pod, settings)
                members += _on_ports(pod, settings, ports)
        self._settings = latest
        return tuple(members)

    def _settings_of(self, pod: Pod) -> EndpointSettings | None:
        known, settings = self._settings.get(pod.name, (None, None))
        if known == pod:
            return settings
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
    if settings.metrics_port is None and ports.metrics is not None:
        settings = dataclasses.replace(settings, metrics_port=ports.metrics)
    for port in ports.serving:
        yield Member(pod.ip, port, settings, ports.health)


def _on(settings: EndpointSettings, accelerator_name: str | None) -> EndpointSettings:
    if accelerator_name is None:
        return settings
    return dataclasses.replace(settings, accelerator=accelerator_name)
