"""What llm-d's labels and annotations say of whether a pod serves clients, and where. Pure.

Names and values are those of https://github.com/llm-d/llm-d-router.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lodestar_extproc.fleet.discovery.kubernetes.objects import Labels, PortName

ROLE_LABEL = "llm-d.ai/role"
HELPING_ROLES = frozenset(("prefill", "encode"))
"""Stages before decoding. A pod that has nothing but these is called by the pods that decode, never
by a client: `prefill`, `encode`, `encode-prefill`, but not `decode`, `both` or `prefill-decode`."""
ACTIVE_PORTS = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")
"""Annotations with the ports that serve now, `8000,8001`; the first that is there holds."""


def serves_clients(labels: Labels) -> bool:
    """Whether a pod with these labels answers clients.

    >>> serves_clients({"llm-d.ai/role": "encode-prefill"}), serves_clients({})
    (False, True)
    """
    stages = labels.get(ROLE_LABEL, "").strip().lower().split("-")
    return not HELPING_ROLES.issuperset(stages)


def active_ports(annotations: Labels, ports: Iterable[PortName]) -> tuple[PortName, ...]:
    """Those of a pool's *ports* on which a pod with these annotations serves; all if none says.

    >>> active_ports({"llm-d.ai/active-ports": "8001, 9000"}, (8000, 8001))
    (8001,)
    """
    written = next((annotations[name] for name in ACTIVE_PORTS if name in annotations), None)
    if written is None:
        return tuple(ports)
    items = written.split(",")
    active = {*map(_number, items), *map(str.strip, items)}
    return tuple(port for port in ports if port in active)


def _number(item: str) -> int | None:
    """As Go's `Sscanf` reads a number: what follows it does not matter."""
    match = re.match(r"\s*\+?(\d+)", item)
    return int(match[1]) if match else None
