"""Which ext_proc filters ask us, and what they are set to: as they stand, or on a route."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lodestar_extproc.config.node import Node
from lodestar_extproc.names import METADATA_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Collection

    from lodestar_extproc.config.connection_manager import ConnectionManager, GrpcAccessLog
    from lodestar_extproc.config.ext_proc_filter import ExtProcFilter, FilterOnRoute
    from lodestar_extproc.config.own_service import OwnService

    Fields: TypeAlias = Node | FilterOnRoute
    """What has the fields of an `ExternalProcessor`."""


def decision_filter(manager: ConnectionManager, own: OwnService) -> ExtProcFilter | None:
    """The filter that asks us for a choice.

    Among several that Envoy waits for: one whose metadata is taken, else one that sees the prompt.
    """

    def likeness(ext_proc: ExtProcFilter) -> tuple[bool, bool]:
        config = ext_proc.config
        return METADATA_NAMESPACE in receiving_namespaces(config), bool(request_body_mode(config))

    waiting = [f for f in own.filters_of(manager) if not f.observes]
    return max(waiting, key=likeness, default=None)


def observing_filter(manager: ConnectionManager, own: OwnService) -> ExtProcFilter | None:
    """The filter that shows us answers without waiting."""
    observers = (f for f in own.filters_of(manager) if f.observes and response_body_mode(f.config))
    return next(observers, None)


def access_log(manager: ConnectionManager, own: OwnService) -> GrpcAccessLog | None:
    """The log that is sent to us."""
    logs = (log for log in manager.grpc_access_logs if own.is_called_by(log.common))
    return next(logs, None)


def towards(
    manager: ConnectionManager, ext_proc: ExtProcFilter, pools: Collection[str]
) -> FilterOnRoute:
    """The filter on the first route to one of *pools* on which it runs, else as it stands."""
    on_routes = (route.of(ext_proc) for route in manager.routes if route.cluster in pools)
    return next((found for found in on_routes if found.runs), ext_proc.everywhere)


def request_body_mode(config: Fields) -> str:
    """`BUFFERED`, `STREAMED` ...; empty where no body is sent."""
    return config.get("processing_mode", "request_body_mode").text.removesuffix("NONE")


def response_body_mode(config: Fields) -> str:
    return config.get("processing_mode", "response_body_mode").text.removesuffix("NONE")


def receiving_namespaces(config: Fields) -> tuple[str, ...]:
    """The namespaces of dynamic metadata that Envoy takes from an ext_proc service."""
    names = config.get("metadata_options", "receiving_namespaces", "untyped")
    return tuple(name.text for name in names.items())


def forwarding_namespaces(config: Fields) -> tuple[str, ...]:
    """The namespaces of dynamic metadata that Envoy shows to an ext_proc service."""
    names = config.get("metadata_options", "forwarding_namespaces", "untyped")
    return tuple(name.text for name in names.items())
