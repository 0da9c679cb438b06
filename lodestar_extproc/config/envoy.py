"""EnvoyConfig: what an Envoy bootstrap says to us, and read_envoy_config(), which reads it.

Fields of Envoy's own that are unknown here are passed over; our own are checked to the letter.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lodestar_extproc.config import envoy_tree as tree
from lodestar_extproc.config.callee import addresses_of, callee
from lodestar_extproc.config.envoy_pool import read_pool, unread
from lodestar_extproc.config.errors import NotEnvoyConfig
from lodestar_extproc.config.ext_proc_fields import (
    longest_wait_s,
    request_body_mode,
    response_body_mode,
)
from lodestar_extproc.config.holding import with_hold_limit
from lodestar_extproc.config.members import MARK, NAMESPACE, is_marked, settings_block
from lodestar_extproc.config.node import read_node
from lodestar_extproc.config.old_spelling import OldSpelling, old_spellings
from lodestar_extproc.config.overrides import RouteOverride, old_keys, read_overrides
from lodestar_extproc.config.own_service import NOBODY, OwnService, find_own_service
from lodestar_extproc.config.pool import Pool
from lodestar_extproc.config.reader import unknown
from lodestar_extproc.config.resources import read_resources
from lodestar_extproc.config.schema import BOOTSTRAP
from lodestar_extproc.config.settings import PoolSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from lodestar_extproc.config.connection_manager import ConnectionManager
    from lodestar_extproc.config.node import Node
    from lodestar_extproc.config.not_looked_at import NotLookedAt
    from lodestar_extproc.config.resources import Resources

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TimingSources:
    """From where Envoy lets us see how an answer went; each is optional.

    Attributes:
        request_body_mode: of the deciding ext_proc filter; empty where there is none.
        response_body_mode: of the same filter; empty where it sees no answers.
        observer: whether a second ext_proc filter shows answers without Envoy waiting.
        access_log_tags: the custom tags of the gRPC access log; None where there is none.
    """

    request_body_mode: str = ""
    response_body_mode: str = ""
    observer: bool = False
    access_log_tags: frozenset[str] | None = None

    @property
    def first_token(self) -> bool:
        """Whether a first token is seen when it comes."""
        return self.observer or bool(self.response_body_mode)


@dataclass(frozen=True, slots=True)
class EnvoyConfig:
    """What `serve` needs from an Envoy bootstrap.

    Attributes:
        extproc_address: where Envoy expects the ext_proc service, `host:port` or `unix:path`; the
            host may be a name. None where the file does not say.
        access_log_address: the same of the access log service.
        replica_addresses: where it expects us, all of them, those of clusters to which only the
            observer or the access log goes too: ourselves, and whoever else hears of requests.
        files: those beside the bootstrap that it leads to.
        listen: where Lodestar was told to listen, which helps to tell who it is.
        own_service: which of the services that Envoy calls are Lodestar.
        old_spellings: where it says something by a name of before.
        not_looked_at: what of Envoy's configuration stands elsewhere.
    """

    path: Path
    pools: tuple[Pool, ...]
    overrides: tuple[RouteOverride, ...] = ()
    sources: TimingSources = TimingSources()
    extproc_address: str | None = None
    access_log_address: str | None = None
    replica_addresses: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    listen: tuple[str, ...] = ()
    own_service: OwnService = field(default=NOBODY, compare=False)
    old_spellings: tuple[OldSpelling, ...] = field(default=(), compare=False)
    not_looked_at: tuple[NotLookedAt, ...] = field(default=(), compare=False)

    def pool(self, name: str) -> Pool | None:
        return next((pool for pool in self.pools if pool.name == name), None)


def read_envoy_config(path: Path, listen: Sequence[str] = ()) -> EnvoyConfig:
    """Read the Envoy bootstrap at *path*, YAML or JSON.

    Args:
        replica_addresses: where it expects us, all of them, those of clusters to which only the
            observer or the access log goes too: ourselves, and whoever else hears of requests.
        files: those beside the bootstrap that it leads to.
        listen: where Lodestar was told to listen.

    Raises:
        NotEnvoyConfig: it is something else.
        ConfigError: there is no pool, or a setting in it is wrong.
    """
    return config_of(read_resources(read_root(path), path), path, listen)


def config_of(resources: Resources, path: Path, listen: Sequence[str] = ()) -> EnvoyConfig:
    """What *resources*, whose bootstrap was read from *path*, say.

    Raises:
        ConfigError: there is no pool, or a setting in it is wrong.
    """
    _check_marks(resources)
    pools = tuple(read_pool(cluster, resources.root, path) for cluster in resources.pools)
    if not pools:
        raise _no_pool(resources)
    names = [pool.name for pool in pools]
    own = find_own_service(resources, listen)
    extproc = _extproc_addresses(resources, own, names)
    longest_s = _longest_wait_s(resources, own, names)
    return EnvoyConfig(
        path=path,
        files=resources.files,
        listen=tuple(listen),
        pools=tuple(
            replace(pool, settings=with_hold_limit(pool.settings, longest_s)) for pool in pools
        ),
        overrides=read_overrides(resources.managers, own, names),
        sources=_sources(resources, own, names),
        own_service=own,
        extproc_address=next(iter(extproc), None),
        replica_addresses=_replica_addresses(extproc, own),
        access_log_address=_access_log_address(resources, own),
        old_spellings=(
            *(
                old
                for cluster in resources.pools
                for old in old_spellings(settings_block(cluster), PoolSettings)
            ),
            *old_keys(resources.managers, own),
        ),
        not_looked_at=(
            *resources.not_looked_at,
            *(part for of in zip(resources.pools, pools, strict=True) for part in unread(*of)),
        ),
    )


def read_root(path: Path) -> Node:
    """The whole file, if it is an Envoy bootstrap.

    Raises:
        NotEnvoyConfig: it is something else.
        ConfigError: it cannot be read.
    """
    root = read_node(path, BOOTSTRAP)
    if not root.get("static_resources") and not root.get("dynamic_resources"):
        problem = "is not an Envoy bootstrap: it has no static_resources and no dynamic_resources"
        raise NotEnvoyConfig(problem, file=str(path))
    return root


def _check_marks(resources: Resources) -> None:
    for cluster in resources.clusters:
        block = settings_block(cluster)
        others = [node for name, node in block.entries() if name != MARK]
        if is_marked(cluster) and others:
            problem = (
                f"no setting of a pool: {MARK}: true says that this cluster is Lodestar itself"
            )
            raise others[0].error(problem)


def _no_pool(resources: Resources) -> Exception:
    for cluster in resources.clusters:
        for name, node in cluster.get("metadata", "filter_metadata").entries():
            if name != NAMESPACE and ("lode" in name.lower() or "star" in name.lower()):
                return node.error(unknown(name, [NAMESPACE]))
    passed_over = "".join(f"; not looked at: {each.what}" for each in resources.not_looked_at)
    return resources.root.get("static_resources", "clusters").error(
        f"no cluster is a pool: give your engines' cluster metadata.filter_metadata.{NAMESPACE}, "
        f"for example {{policy: learned}}{passed_over}"
    )


def _sources(resources: Resources, own: OwnService, pools: Collection[str]) -> TimingSources:
    tags = None
    if log := _first(resources, own, tree.access_log):
        tags = frozenset(tag.get("tag").text for tag in log.common.get("custom_tags").items())
    modes = ("", "")
    for manager in resources.managers:
        if decision := tree.decision_filter(manager, own):
            called = tree.towards(manager, decision, pools)
            modes = request_body_mode(called), response_body_mode(called)
            break
    return TimingSources(
        request_body_mode=modes[0],
        response_body_mode=modes[1],
        observer=_first(resources, own, tree.observing_filter) is not None,
        access_log_tags=tags,
    )


def _longest_wait_s(resources: Resources, own: OwnService, pools: Collection[str]) -> float:
    """Of the filters that ask for choices, the least patient; 0 where none is known."""
    waits = (
        longest_wait_s(tree.towards(manager, decision, pools))
        for manager in resources.managers
        if (decision := tree.decision_filter(manager, own))
    )
    return min(waits, default=0.0)


def _extproc_addresses(
    resources: Resources, own: OwnService, pools: Collection[str]
) -> tuple[str, ...]:
    for manager in resources.managers:
        if decision := tree.decision_filter(manager, own):
            name = callee(tree.towards(manager, decision, pools))
            return addresses_of(resources.cluster(name), name)
    return ()


def _replica_addresses(extproc: Iterable[str], own: OwnService) -> tuple[str, ...]:
    found = (addresses_of(cluster, cluster.get("name").text) for cluster in own.clusters)
    return tuple(dict.fromkeys((*extproc, *chain.from_iterable(found))))


def _access_log_address(resources: Resources, own: OwnService) -> str | None:
    log = _first(resources, own, tree.access_log)
    return _first_address(resources, callee(log.common)) if log else None


def _first_address(resources: Resources, name: str) -> str | None:
    return next(iter(addresses_of(resources.cluster(name), name)), None)


def _first(
    resources: Resources, own: OwnService, find: Callable[[ConnectionManager, OwnService], T | None]
) -> T | None:
    return next(filter(None, (find(manager, own) for manager in resources.managers)), None)
