"""The traps: one function each, named for its rule, from a `Subject` to the faults it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from lodestar_extproc.check.finding import Fault
from lodestar_extproc.check.rules import filters, listener, pool, routes, service
from lodestar_extproc.check.subject import Subject

Rule: TypeAlias = Callable[[Subject], Iterator[Fault]]

RULES: tuple[Rule, ...] = (
    listener.ext_proc_filter,
    listener.body_limit,
    listener.access_log,
    filters.message_timeout,
    filters.failure_mode_allow,
    filters.receiving_namespace,
    filters.forwarding_namespace,
    filters.model_rewrites,
    routes.route_timeout,
    routes.retries,
    routes.previous_hosts,
    routes.retry_on_reset,
    routes.per_try_idle_timeout,
    routes.route_pool,
    pool.override_host,
    pool.header_override,
    pool.idle_timeout,
    pool.pool_max_requests,
    service.service_http2,
    service.service_max_requests,
    service.service_health_check,
    service.service_panic_threshold,
)
