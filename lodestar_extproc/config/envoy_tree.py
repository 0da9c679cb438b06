"""Which ext_proc filters ask us, and what they are set to: as they stand, or on a route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.config.ext_proc_fields import likeness_of_choosing, response_body_mode

if TYPE_CHECKING:
    from collections.abc import Collection

    from lodestar_extproc.config.connection_manager import ConnectionManager, GrpcAccessLog
    from lodestar_extproc.config.ext_proc_filter import ExtProcFilter, FilterOnRoute
    from lodestar_extproc.config.own_service import OwnService


def decision_filter(manager: ConnectionManager, own: OwnService) -> ExtProcFilter | None:
    """The filter that asks us for a choice.

    Among several that Envoy waits for: one whose metadata is taken, else one that sees the prompt.
    """
    waiting = [f for f in own.filters_of(manager) if not f.observes]
    return max(waiting, key=lambda f: likeness_of_choosing(f.config), default=None)


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
