"""read_config_dump(): Envoy's `/config_dump` as the tree that a bootstrap file would be.

What came by discovery stands where it would stand if it were static: listeners and clusters in
`static_resources`, routes and filters in the listeners that ask for them, endpoints in clusters.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Unseen
from lodestar_extproc.check.running.discovered import read_discovered
from lodestar_extproc.check.running.origin import Origin, Origins, source_of
from lodestar_extproc.check.running.resolution import resolve
from lodestar_extproc.config import NotEnvoyConfig
from lodestar_extproc.config.node import Node
from lodestar_extproc.config.schema import BOOTSTRAP, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECTIONS = ("BootstrapConfigDump", "ListenersConfigDump", "ClustersConfigDump", "RoutesConfigDump")
"""Without one of these, a part of the set-up was not looked at."""
CONFIG_DUMP = Kind("envoy.admin.v3.ConfigDump")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An update that Envoy refused, so that it goes on with what it had before."""

    origin: Origin
    problem: str


@dataclass(frozen=True, slots=True)
class RunningConfig:
    """What an Envoy runs by.

    Attributes:
        root: as a bootstrap; lines are 0.
        unseen: what the dump does not hold.
        version: of that Envoy; empty where the dump does not tell.
    """

    root: Node
    origins: Origins
    refusals: tuple[Refusal, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    version: str = ""


def read_document(text: str, name: str) -> Node:
    """*text* as a node without lines; nothing where it is no JSON, as every dump is.

    YAML would be read in the same way, and a mesh's dump in minutes.
    """
    try:
        return Node(json.loads(text), name, 0)
    except ValueError:
        return Node(None, name, 0)


def is_config_dump(root: Node) -> bool:
    """Whether *root* holds what `/config_dump` answers, in whatever a tool has wrapped it."""
    return next(_dumps(root), None) is not None


def read_config_dump(document: Node) -> RunningConfig:
    """Put together what *document*, the answer of `/config_dump`, holds.

    Raises:
        NotEnvoyConfig: it holds no dump, or those of several Envoys.
    """
    dumps = list(_dumps(document))
    if len(dumps) != 1:
        problem = f"holds the dumps of {len(dumps)} Envoys: give one" if dumps else "is no dump"
        raise NotEnvoyConfig(problem, file=document.file)
    sections = {section.type_name: section for section in dumps[0].items()}
    return _Assembly(sections, document.file).whole()


def _dumps(node: Node) -> Iterator[Node]:
    """The lists of sections: `configs`, in as many mappings as egctl and others put around it."""
    sections = replace(node, kind=CONFIG_DUMP).get("configs")
    if any(section.type_name.endswith("ConfigDump") for section in sections.items()):
        yield sections
        return
    for _, inside in node.entries():
        yield from _dumps(inside)


class _Assembly:
    """Puts one dump together."""

    def __init__(self, sections: Mapping[str, Node], file: str) -> None:
        self._sections = sections
        self._file = file
        self._origins: dict[tuple[str | int, ...], Origin] = {}
        self._refusals: list[Refusal] = []
        self._unseen = [
            Unseen(f"the dump has no {name}: ask for the whole /config_dump", self._file)
            for name in SECTIONS
            if name not in sections
        ]
        self._bootstrap = self._section("BootstrapConfigDump").get("bootstrap")

    def whole(self) -> RunningConfig:
        kept = {
            name: node.value
            for name, node in self._bootstrap.entries()
            if name.lower().replace("_", "") not in ("staticresources", "dynamicresources")
        }
        resources = {"listeners": self._listeners(), "clusters": self._clusters()}
        root = Node({**kept, "static_resources": resources}, self._file, 0, kind=BOOTSTRAP)
        unseen = resolve(root, read_discovered(self._sections, self._file), self._origins)
        return RunningConfig(
            root,
            self._origins,
            tuple(self._refusals),
            (*self._unseen, *unseen),
            self._version(),
        )

    # -- listeners and clusters ----------------------------------------------------------------

    def _listeners(self) -> list[object]:
        section = self._section("ListenersConfigDump")
        found = [
            (entry.get("listener"), "static") for entry in section.get("static_listeners").items()
        ]
        source = self._source("lds_config", "LDS")
        for entry in section.get("dynamic_listeners").items():
            self._refused(entry, "listener", entry.get("name").text, source)
            active = entry.get("active_state", "listener")
            warming = entry.get("warming_state", "listener")
            if active:
                found.append((active, source))
            elif warming:
                found.append((warming, f"{source}, warming"))
        return self._placed("listener", found)

    def _clusters(self) -> list[object]:
        section = self._section("ClustersConfigDump")
        found = [
            (entry.get("cluster"), "static") for entry in section.get("static_clusters").items()
        ]
        source = self._source("cds_config", "CDS")
        for state, suffix in (("active", ""), ("warming", ", warming")):
            for entry in section.get(f"dynamic_{state}_clusters").items():
                cluster = entry.get("cluster")
                self._refused(entry, "cluster", cluster.get("name").text, source)
                if cluster:
                    found.append((cluster, source + suffix))
        return self._placed("cluster", found)

    def _placed(self, kind: str, found: list[tuple[Node, str]]) -> list[object]:
        for i, (resource, source) in enumerate(found):
            name = resource.get("name").text or f"[{i}]"
            self._origins["static_resources", f"{kind}s", i] = Origin(kind, name, source)
        # Copies: routes, filters and endpoints are put into them.
        return [copy.deepcopy(resource.value) for resource, _ in found]

    # -- small reads ---------------------------------------------------------------------------

    def _section(self, name: str) -> Node:
        return self._sections.get(name, Node(None, self._file, 0))

    def _source(self, key: str, service: str) -> str:
        return source_of(self._bootstrap.get("dynamic_resources", key), service)

    def _refused(self, entry: Node, kind: str, name: str, source: str) -> None:
        problem = entry.get("error_state", "details").text
        if problem:
            self._refusals.append(Refusal(Origin(kind, name, source), problem))

    def _version(self) -> str:
        version = self._bootstrap.get("node", "user_agent_build_version", "version")
        numbers = (
            version.get(name).number or 0 for name in ("major_number", "minor_number", "patch")
        )
        return ".".join(f"{number:g}" for number in numbers) if version else ""
