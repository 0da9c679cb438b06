"""The fixed rules by name.

The learned policy is composed in `routing/assembly.py`, for it needs a learner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from lodestar_extproc.policies.cache_aware import CacheAware
from lodestar_extproc.policies.cache_cost import CacheCost
from lodestar_extproc.policies.least_load import LeastLoad
from lodestar_extproc.policies.least_request import LeastRequest
from lodestar_extproc.policies.lmetric import LMetric
from lodestar_extproc.policies.power_of_two import PowerOfTwo
from lodestar_extproc.policies.prefix_affinity_token_load import PrefixAffinityTokenLoad
from lodestar_extproc.policies.prefix_cache import PrefixCache
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.policies.random_choice import RandomChoice
from lodestar_extproc.policies.round_robin import RoundRobin
from lodestar_extproc.policies.session_affinity import SessionAffinity

HEURISTICS: Mapping[str, Callable[[], Policy]] = MappingProxyType(
    {
        "random": RandomChoice,
        "round_robin": RoundRobin,
        "least_request": LeastRequest,
        "power_of_two": PowerOfTwo,
        "prefix_cache": PrefixCache,
        "prefix_affinity_token_load": PrefixAffinityTokenLoad,
        "lmetric": LMetric,
        "cache_cost": CacheCost,
        "cache_aware": CacheAware,
        "least_load": LeastLoad,
        "session_affinity": SessionAffinity,
    }
)
