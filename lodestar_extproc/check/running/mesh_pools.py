"""mark_pools(): which clusters of a mesh's proxy are pools: their settings stand elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.config.members import NAMESPACE
from lodestar_extproc.config.own_service import likeness
from lodestar_extproc.names import DESTINATION

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Node
    from lodestar_extproc.config.resources import Resources


def mark_pools(resources: Resources) -> None:
    """Give each cluster that is a pool our block, with nothing in it, if none has one.

    That are those that take our choice; where none does, those to which routes lead on which a
    filter like ours runs.
    """
    if resources.pools:
        return
    named = _asked_about(resources)
    takers = [cluster for cluster in resources.clusters if _takes_choice(cluster)]
    asked = [cluster for cluster in resources.clusters if cluster.get("name").text in named]
    for cluster in takers or asked:
        _put_block(cluster)


def _takes_choice(cluster: Node) -> bool:
    for policy in cluster.get("load_balancing_policy", "policies").items():
        config = policy.get("typed_extension_config", "typed_config")
        for source in config.get("override_host_sources").items():
            keys = [step.get("key").text for step in source.get("metadata", "path").items()]
            if DESTINATION in (*keys, source.get("header").text):
                return True
    return False


def _asked_about(resources: Resources) -> set[str]:
    return {
        route.cluster
        for manager in resources.managers
        for route in manager.routes
        for ext_proc in manager.ext_proc
        if route.of(ext_proc).runs and likeness(route.of(ext_proc)) > 0
    }


def _put_block(cluster: Node) -> None:
    place = cluster
    for name in ("metadata", "filter_metadata"):
        inside = place.get(name)
        if not isinstance(inside.value, dict):
            assert isinstance(place.value, dict)
            place.value[name] = {}
        place = place.get(name)
    assert isinstance(place.value, dict)
    place.value[NAMESPACE] = {}
