"""What can be held against one another on real engines, by name: a policy, or another router."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Keeps caches whole above all: the best weights by hand where sessions outgrow them.
        "learned_by_hand": {"policy": "learned", "memory_weight_s": 0.0, "eviction_weight": 30.0},
        # Sends every request when it comes.
        "learned_at_once": {"policy": "learned", "hold_limit_s": 0.0},
    }
)
"""Policies with settings of their own."""
VLLM_ROUTER = "vllm_router_cache_aware"
OTHER_ROUTERS = (VLLM_ROUTER,)
"""They stand in front of the engines by themselves."""


def settings_of(contender: str) -> dict[str, Any]:
    """Of a pool that decides as *contender*, which is one of ours."""
    return dict(VARIANTS.get(contender, {"policy": contender}))


def in_virtual_time(contender: str) -> str:
    """As simulations name it.

    >>> in_virtual_time("lmetric"), in_virtual_time("learned_by_hand")
    ('lmetric', 'learned:memory_weight_s=0.0+eviction_weight=30.0')
    """
    settings = settings_of(contender)
    policy = settings.pop("policy")
    changes = "+".join(f"{name}={value}" for name, value in settings.items())
    return f"{policy}:{changes}" if changes else str(policy)
