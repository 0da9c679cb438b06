"""The traps: one function each, named for its rule, from a `Subject` to the faults it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from lodestar_extproc.check.finding import Fault
from lodestar_extproc.check.rules import (
    access_log,
    body_limit,
    chain,
    commands_of_clients,
    filters,
    limits,
    modes,
    observer,
    policies,
    pool,
    replicas,
    retries,
    routes,
    service,
    timers,
)
from lodestar_extproc.check.subject import Subject

Rule: TypeAlias = Callable[[Subject], Iterator[Fault]]

RULES: tuple[Rule, ...] = (
    service.whose_service,
    service.service_cluster,
    chain.ext_proc_filter,
    chain.asked_twice,
    modes.processing_mode,
    body_limit.body_limit,
    filters.message_timeout,
    filters.max_message_timeout,
    filters.failure_mode_allow,
    filters.receiving_namespace,
    filters.model_rewrites,
    observer.observer_missing,
    observer.observer_waits,
    observer.forwarding_namespace,
    access_log.access_log,
    access_log.access_log_filter,
    timers.answer_timers,
    retries.retries,
    retries.previous_hosts,
    retries.retry_on_reset,
    retries.generated_twice,
    routes.no_route,
    routes.route_pool,
    policies.override_host,
    policies.header_override,
    pool.no_endpoint,
    pool.idle_timeout,
    limits.pool_max_requests,
    limits.pool_max_retries,
    limits.service_max_requests,
    service.service_http2,
    service.service_health_check,
    service.service_health_interval,
    service.service_panic_threshold,
)
"""A set-up with one of these does not work, or fails requests that it need not fail."""

HINTS: tuple[Rule, ...] = (
    chain.not_asked_on_every_route,
    modes.answers_wait,
    observer.observer_attributes,
    timers.silent_for_minutes,
    retries.few_retries,
    access_log.no_access_log,
    access_log.access_log_tags,
    access_log.access_log_interval,
    pool.pool_health_check,
    pool.connect_timeout,
    commands_of_clients.trusted_headers,
    replicas.replicas_share_nothing,
    replicas.share_password_in_clear,
)
"""A set-up with one of these works, and worse than it could."""
