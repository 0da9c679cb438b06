"""What Kubernetes objects say of endpoints: pods, InferencePools, EndpointSlices. Pure.

What an object leaves out is empty here; nothing in one raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, TypeAlias

from lodestar_extproc.fleet.discovery.kubernetes.api import Object

Labels = Mapping[str, str]
PortName: TypeAlias = int | str
"""A port by its number, or as a pod's containers name it."""
MAX_PORT = 65535  # TCP


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that can be sent requests.

    Attributes:
        ip: of its own network, the preferred family's.
        node: where it runs.
        node_selector: labels that its node must have.
        devices: accelerators that its containers own.
        named_ports: of its containers, by name.
    """

    name: str
    ip: str
    node: str
    labels: Labels
    annotations: Labels
    node_selector: Labels
    devices: int
    named_ports: Mapping[str, int]

    def port(self, wanted: PortName) -> int | None:
        """The number of the port *wanted*; None where it has none of that name."""
        return self.named_ports.get(wanted) if isinstance(wanted, str) else wanted


class PortRole(StrEnum):
    """What a port of an InferencePool is for; one without a role serves."""

    SERVING = "Serving"
    METRICS = "Metrics"
    HEALTH = "Health"


@dataclass(frozen=True, slots=True)
class PoolPorts:
    """The target ports of an InferencePool.

    Attributes:
        serving: each is an endpoint on every pod.
        metrics, health: where those are asked instead; None for the serving port itself.
    """

    serving: tuple[PortName, ...]
    metrics: PortName | None = None
    health: PortName | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What an InferencePool selects."""

    labels: str
    ports: PoolPorts


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """A ready address of an EndpointSlice, with one of its ports."""

    ip: str
    port: int
    port_name: str
    node: str


def read_pod(pod: Object) -> Pod | None:
    """*pod*, if it is ready and not leaving."""
    meta, spec, status = (part(pod, name) for name in ("metadata", "spec", "status"))
    ip = _text(status, "podIP")
    # A pod that is being deleted stays Ready until its containers have ended.
    if meta.get("deletionTimestamp") or not _is_ip(ip) or not _is_ready(status):
        return None
    return Pod(
        name=_text(meta, "name"),
        ip=ip,
        node=_text(spec, "nodeName"),
        labels=_labels(meta, "labels"),
        annotations=_labels(meta, "annotations"),
        node_selector=_node_selector(spec),
        devices=_devices(spec),
        named_ports=_named_ports(spec),
    )


def read_inference_pool(pool: Object) -> PoolSpec | None:
    """What *pool* selects; None where it selects nothing, rather than every pod.

    Of v1, `selector.matchLabels` and `targetPorts`; of v1alpha2, `selector` and `targetPortNumber`.
    """
    spec = part(pool, "spec")
    selector = part(spec, "selector")
    wanted = _labels(spec, "selector")
    if any(isinstance(value, (Mapping, list)) for value in selector.values()):
        wanted = _labels(selector, "matchLabels")
    ports: dict[str, list[PortName]] = {}
    for port in (*parts(spec, "targetPorts"), {"number": spec.get("targetPortNumber")}):
        found = _port(port.get("number")) or _text(port, "name")
        if found:
            ports.setdefault(_text(port, "role") or PortRole.SERVING, []).append(found)
    if not wanted:
        return None
    return PoolSpec(
        labels=",".join(f"{key}={value}" for key, value in sorted(wanted.items())),
        ports=PoolPorts(
            serving=tuple(dict.fromkeys(ports.get(PortRole.SERVING, ()))),
            metrics=next(iter(ports.get(PortRole.METRICS, ())), None),
            health=next(iter(ports.get(PortRole.HEALTH, ())), None),
        ),
    )


def read_endpoint_slice(found: Object) -> Iterator[SliceEndpoint]:
    """Every ready address of a slice, with every TCP port."""
    ports = [
        (number, _text(port, "name"))
        for port in parts(found, "ports")
        if (number := _port(port.get("port"))) is not None
        and (_text(port, "protocol") or "TCP") == "TCP"
    ]
    for endpoint in parts(found, "endpoints"):
        conditions = part(endpoint, "conditions")
        # An unknown readiness is to be taken for ready; an endpoint that leaves is never ready,
        # unless its Service publishes those that are not.
        if conditions.get("ready") is False or conditions.get("terminating") is True:
            continue
        # All addresses are of one pod: the first will do.
        for ip in list(endpoint.get("addresses") or ())[:1]:
            if _is_ip(ip):
                for port, name in ports:
                    yield SliceEndpoint(ip, port, name, _text(endpoint, "nodeName"))


def node_labels(node: Object) -> Labels:
    """The labels of a node."""
    return _labels(part(node, "metadata"), "labels")


def _is_ready(status: Object) -> bool:
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in parts(status, "conditions")
    )


def _node_selector(spec: Object) -> Labels:
    """Labels the pod's node must have: of `nodeSelector`, and of affinity that leaves no choice."""
    required = part(part(spec, "affinity"), "nodeAffinity").get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = list(parts(required, "nodeSelectorTerms"))
    certain = {
        _text(rule, "key"): str(rule["values"][0])
        for rule in (parts(terms[0], "matchExpressions") if len(terms) == 1 else ())
        if rule.get("operator") == "In" and len(rule.get("values") or ()) == 1
    }
    return {**certain, **_labels(spec, "nodeSelector")}


DEVICE_RESOURCES = (
    "nvidia.com/gpu",
    "amd.com/gpu",
    "google.com/tpu",
    "habana.ai/gaudi",
    "gpu.intel.com/i915",
    "gpu.intel.com/xe",
    "aws.amazon.com/neuron",
)
"""Extended resources by which device plugins count whole accelerators."""


def _devices(spec: Object) -> int:
    limits = [part(part(c, "resources"), "limits") for c in parts(spec, "containers")]
    counts = (str(limit.get(name, "")) for limit in limits for name in DEVICE_RESOURCES)
    return sum(int(count) for count in counts if count.isdecimal())


def _named_ports(spec: Object) -> Mapping[str, int]:
    """Of containers, and of those that start first and stay, such as a routing sidecar."""
    holders = (*parts(spec, "initContainers"), *parts(spec, "containers"))
    named = (
        (_text(port, "name"), _port(port.get("containerPort")))
        for container in holders
        for port in parts(container, "ports")
    )
    return {name: number for name, number in named if name and number is not None}


def part(holder: object, name: str) -> Object:
    """The object under *name*; empty where there is none."""
    value = holder.get(name) if isinstance(holder, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def parts(holder: object, name: str) -> Iterator[Object]:
    """The objects in the list under *name*; none where there is no list."""
    values = holder.get(name) if isinstance(holder, Mapping) else None
    if isinstance(values, list):
        yield from (value for value in values if isinstance(value, Mapping))


def _text(holder: Object, name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def _labels(holder: Object, name: str) -> Labels:
    return {key: str(value) for key, value in part(holder, name).items()}


def _port(number: Any) -> int | None:
    return number if isinstance(number, int) and 1 <= number <= MAX_PORT else None


def _is_ip(text: object) -> bool:
    try:
        ip_address(str(text))
    except ValueError:
        return False
    return True
