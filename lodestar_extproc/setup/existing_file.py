"""with_lodestar(): an Envoy file that exists, with its engines' cluster made a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.mending.fixed import Fixed, fixed
from lodestar_extproc.check.mending.mended import mended
from lodestar_extproc.config.members import settings_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lodestar_extproc.check.finding import Finding, Patch
    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.node import Node
    from lodestar_extproc.setup.engine_address import EngineAddress

SERVICE = "lodestar"
"""The cluster through which Envoy is to reach Lodestar."""


class CannotAddError(Exception):
    """What is missing for the file to be added to; says what to do."""


def with_lodestar(
    text: str,
    subject: Subject,
    engines: Sequence[EngineAddress],
    examine: Callable[[str], Iterable[Finding]],
    *,
    cluster: str = "",
    lodestar_port: int = 9002,
) -> Fixed:
    """*text*, of which *subject* is made, with pool, service and the doctor's cures.

    Args:
        cluster: the engines' one; empty to find it by their addresses.

    Raises:
        CannotAddError: it cannot be told which cluster is the engines'.
        CannotMendError: the text cannot be changed in its place.
    """
    pool = _engines_cluster(subject, engines, cluster)
    root = subject.resources.root
    patches: list[Patch] = []
    if not settings_block(pool):
        patches.append(subject.put(settings_block(pool), {"policy": "learned"}))
    if not subject.service.clusters and subject.resources.cluster(SERVICE) is None:
        clusters = root.get("static_resources", "clusters")
        patches.append(subject.append(clusters, stanzas.service_cluster(SERVICE, lodestar_port)))
    return fixed(mended(text, tuple(patches)), root.file, examine)


def _engines_cluster(subject: Subject, engines: Sequence[EngineAddress], name: str) -> Node:
    named = {cluster.get("name").text: cluster for cluster in subject.resources.clusters}
    if name:
        if name not in named:
            raise CannotAddError(f"there is no cluster {name}; there are: {', '.join(named)}")
        return named[name]
    wanted = {(engine.host, engine.port) for engine in engines}
    found = [cluster for cluster in named.values() if wanted & set(_hosts(cluster))]
    if len(found) != 1:
        which = "no cluster has" if not found else "several clusters have"
        raise CannotAddError(
            f"{which} an endpoint at {', '.join(engine.host_and_port for engine in engines)}: name "
            f"the engines' cluster by --cluster, of {', '.join(named)}"
        )
    return found[0]


def _hosts(cluster: Node) -> Iterator[tuple[str, int]]:
    for locality in cluster.get("load_assignment", "endpoints").items():
        for entry in locality.get("lb_endpoints").items():
            socket = entry.get("endpoint", "address", "socket_address")
            host = socket.get("address").text
            yield (
                "127.0.0.1" if host == "localhost" else host,
                int(socket.get("port_value").number or 0),
            )
