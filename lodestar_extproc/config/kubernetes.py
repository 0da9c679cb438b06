"""Kubernetes as the source of a pool's endpoints: what is watched there, by name.

The API server is the business of `fleet.discovery.kubernetes`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from lodestar_extproc.config.endpoint_settings import EndpointSettings

POOL_GROUP = "inference.networking.k8s.io"


@dataclass(frozen=True, slots=True)
class InferencePoolRef:
    """The InferencePool of this name: its ready pods, each on every target port."""

    name: str
    namespace: str
    group: str = POOL_GROUP

    def __str__(self) -> str:
        return f"InferencePool {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PodSelector:
    """The ready pods with these labels, each on every port, where there is no InferencePool.

    Attributes:
        labels: a label selector, `app=vllm,env in (prod)`.
        ports: by number, or by the name that pods give them.
    """

    labels: str
    ports: tuple[int | str, ...]
    namespace: str
    name: str = "pods"

    def __str__(self) -> str:
        return f"pods {self.labels} of {self.namespace}"


@dataclass(frozen=True, slots=True)
class ServiceRef:
    """What the EndpointSlices of a Service say.

    Attributes:
        port: name or target port number; empty for a Service with one port.
    """

    name: str
    namespace: str
    port: str = ""

    def __str__(self) -> str:
        return f"Service {self.namespace}/{self.name}"


Watched: TypeAlias = InferencePoolRef | PodSelector | ServiceRef


@dataclass(frozen=True, slots=True)
class KubernetesSource:
    """What to watch, and what holds for endpoints that say nothing of their own."""

    watched: Watched
    defaults: EndpointSettings = field(default_factory=EndpointSettings)
