"""find_own_service(): which of the services that Envoy calls is Lodestar.

An Envoy may call other external processors (guardrails, classifiers) and send its access log to
others (audits). They are nobody's to bind, to judge or to cure: so this is decided here alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar_extproc.config.callee import addresses_of, callee, same_place
from lodestar_extproc.config.ext_proc_fields import receiving_namespaces
from lodestar_extproc.config.members import MARK, NAMESPACE, is_marked
from lodestar_extproc.names import KEY_PREFIX, METADATA_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from lodestar_extproc.config.connection_manager import ConnectionManager
    from lodestar_extproc.config.ext_proc_filter import ExtProcFilter, FilterOnRoute
    from lodestar_extproc.config.node import Node
    from lodestar_extproc.config.resources import Resources


@dataclass(frozen=True, slots=True)
class OwnService:
    """Which of the services that Envoy calls are Lodestar.

    Attributes:
        names: of their clusters, or the URIs of Google's gRPC client; none where Envoy calls none,
            or where it cannot be told.
        clusters: those of *names* that stand in the configuration.
        others: the ext_proc filters that call somebody else, or nobody knows whom.
    """

    names: frozenset[str] = frozenset()
    clusters: tuple[Node, ...] = ()
    others: tuple[ExtProcFilter, ...] = ()

    def is_called_by(self, client: Node | FilterOnRoute) -> bool:
        """Whether the `grpc_service` of an access log or a filter is us."""
        return callee(client) in self.names

    def filters_of(self, manager: ConnectionManager) -> Iterator[ExtProcFilter]:
        """The filters of *manager* that call us, on some route at least."""
        for ext_proc in manager.ext_proc:
            if not self.names.isdisjoint(_callees(ext_proc, manager)):
                yield ext_proc

    @property
    def problem(self) -> str:
        """Why it cannot be told who is ours, and what to write; empty where it can."""
        if self.names or not self.others:
            return ""
        found = ", ".join(dict.fromkeys(f"{f.name} (line {f.place.line})" for f in self.others))
        return (
            f"which ext_proc filter asks Lodestar? It cannot be told of {found}. Give the cluster "
            f"of Lodestar metadata: {{filter_metadata: {{{NAMESPACE}: {{{MARK}: true}}}}}}, or say "
            "by --listen where Lodestar is called"
        )


NOBODY = OwnService()


def find_own_service(resources: Resources, listen: Sequence[str] = ()) -> OwnService:
    """Who of those that are called is Lodestar.

    A mark in a cluster's metadata says it; else an address of *listen*; else the likeness of the
    filters that see requests for a pool. Where two are equally alike, it is said of none.

    Args:
        listen: where Lodestar was told to listen.
    """
    calls = tuple(_calls(resources))
    asked = {name for m in resources.managers for f in m.ext_proc for name in _callees(f, m)}
    marked = {c.get("name").text for c in resources.clusters if is_marked(c)}
    names = marked
    if asked.isdisjoint(marked):
        here = {name for name in asked if _is_at(resources, name, listen)}
        names = marked | (_likeliest(resources, calls, here) or _named(asked))
    logged = {callee(log.common) for m in resources.managers for log in m.grpc_access_logs}
    names |= set(_twins(resources, names, asked | logged))
    others = (f for m in resources.managers for f in m.ext_proc if names.isdisjoint(_callees(f, m)))
    clusters = tuple(c for c in resources.clusters if c.get("name").text in names)
    return OwnService(frozenset(names), clusters, tuple(others))


def likeness(called: FilterOnRoute) -> int:
    """How much a filter looks like ours: it may choose, it tells our keys, it has our name."""
    headers = (
        *called.get("grpc_service", "initial_metadata").items(),
        *called.get("grpc_initial_metadata").items(),
    )
    chooses = not called.ext_proc.observes and METADATA_NAMESPACE in receiving_namespaces(called)
    return sum(
        (
            chooses,
            any(h.get("key").text.lower().startswith(KEY_PREFIX) for h in headers),
            NAMESPACE in callee(called).lower(),
        )
    )


def _calls(resources: Resources) -> Iterator[FilterOnRoute]:
    """The filters that see requests for a pool, or for a cluster that is not known here."""
    for manager in resources.managers:
        for ext_proc in manager.ext_proc:
            for route in manager.routes:
                on_route = route.of(ext_proc)
                if on_route.runs and resources.may_be_pool(route.cluster):
                    yield on_route
            if not manager.route_tables:
                yield ext_proc.everywhere


def _callees(ext_proc: ExtProcFilter, manager: ConnectionManager) -> set[str]:
    """Whom a filter calls: as it stands, and as its manager's routes have it."""
    on_routes = (route.of(ext_proc) for route in manager.routes)
    return {callee(ext_proc.everywhere), *map(callee, on_routes)}


def _likeliest(
    resources: Resources, calls: Iterable[FilterOnRoute], among: Collection[str]
) -> set[str]:
    """The callees most like ours, of *among* if there are any; none where it cannot be told."""
    if len(among) == 1:
        return set(among)
    scores: dict[str, int] = {}
    for called in calls:
        name = callee(called)
        if name and (name in among or not among):
            scores[name] = max(scores.get(name, 0), likeness(called))
    best = max(scores.values(), default=0)
    first, *others = [name for name, score in scores.items() if score == best] or [""]
    twins = _twins(resources, {first}, others)
    return {first} if best and set(others) <= set(twins) else set()


def _named(asked: Collection[str]) -> set[str]:
    """The only callee with our name, where no route is seen that leads to a pool."""
    named = {name for name in asked if NAMESPACE in name.lower()}
    return named if len(named) == 1 else set()


def _twins(resources: Resources, names: Collection[str], among: Collection[str]) -> Iterator[str]:
    """Those of *among* at an address of one of *names*: one service by several names."""
    addresses = {a for name in names for a in addresses_of(resources.cluster(name), name)}
    for name in among:
        if not addresses.isdisjoint(addresses_of(resources.cluster(name), name)):
            yield name


def _is_at(resources: Resources, name: str, listen: Sequence[str]) -> bool:
    found = addresses_of(resources.cluster(name), name)
    return any(same_place(address, own) for address in found for own in listen)
