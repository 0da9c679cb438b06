"""ExtProcFilter: an ext_proc filter of a connection manager, however it is wrapped.

And FilterOnRoute: what holds of it for the requests of one route.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.config.node import Node

PROCESSOR = "ExternalProcessor"
PER_ROUTE, WRAPPER = "ExtProcPerRoute", "FilterConfig"
"""What a route may say of an ext_proc filter; the other wraps it, for any filter."""


@dataclass(frozen=True, slots=True)
class ExtProcFilter:
    """A filter that calls an external processor.

    Attributes:
        name: by which routes override it.
        config: its `ExternalProcessor`.
        place: its entry in `http_filters`.
        disabled: whether it runs only where a route enables it.
        conditional: whether a matcher decides about each request if it runs.
    """

    name: str
    config: Node
    place: Node
    disabled: bool = False
    conditional: bool = False

    @property
    def observes(self) -> bool:
        """Whether Envoy waits for no reply."""
        return self.config.get("observability_mode").flag

    @property
    def everywhere(self) -> FilterOnRoute:
        """The filter where no route overrides it."""
        return FilterOnRoute(self, (), runs=not self.disabled)


@dataclass(frozen=True, slots=True)
class FilterOnRoute:
    """An ext_proc filter as one route has it.

    Attributes:
        overrides: the route's `ExtProcOverrides`, outermost first.
        runs: whether it is called at all.
    """

    ext_proc: ExtProcFilter
    overrides: tuple[Node, ...]
    runs: bool

    def get(self, *names: str) -> Node:
        """A field of the innermost override that has it, else of the filter."""
        for override in reversed(self.overrides):
            if found := override.get(*names[:1]):
                return found.get(*names[1:])
        return self.ext_proc.config.get(*names)


def ext_proc_filters(entry: Node, config: Node) -> Iterator[ExtProcFilter]:
    """The ext_proc filters in the *config* of an *entry* of `http_filters`.

    It is one itself, or chooses among some by a matcher.
    """
    name, disabled = entry.get("name").text, entry.get("disabled").flag
    if config.type_name == PROCESSOR:
        yield ExtProcFilter(name, config, entry, disabled)
        return
    for inner in config.messages(PROCESSOR):
        yield ExtProcFilter(name, inner, entry, disabled, conditional=True)


def on_route(ext_proc: ExtProcFilter, places: tuple[Node, ...]) -> FilterOnRoute:
    """What holds of a filter where *places* may speak of it: table, virtual host, route, cluster.

    As Envoy has it: of whether it runs the innermost place that names it decides, and what the
    places override is merged field by field, the innermost first.
    """
    in_chain, asleep, overrides = not ext_proc.disabled, False, []
    for place in places:
        entry = place.get("typed_per_filter_config", ext_proc.name)
        if not entry:
            continue
        wrapped = entry.type_name == WRAPPER
        # An entry that does not disable a filter enables it.
        in_chain = not (wrapped and entry.get("disabled").flag)
        config = entry.get("config") if wrapped else entry
        if config.type_name == PER_ROUTE:
            asleep = config.get("disabled").flag
            if config.get("overrides"):
                overrides.append(config.get("overrides"))
    return FilterOnRoute(ext_proc, tuple(overrides), runs=in_chain and not asleep)
