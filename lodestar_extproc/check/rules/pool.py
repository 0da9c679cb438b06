"""Traps in the engines' cluster: its connections and its health checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.clusters import has_endpoints, protocol_options
from lodestar_extproc.check.finding import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.finding import Patch
    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.node import Node

KEEP_ALIVE_S = 5.0
"""vLLM and SGLang serve by uvicorn, which closes idle connections after 5 s."""
IDLE_TIMEOUT = "4s"
CONNECT_S = 2.0
"""An engine is near: one that has not answered by then will not. Envoy's default is 5 s."""


def idle_timeout(subject: Subject) -> Iterator[Fault]:
    """Envoy must close idle connections before the engine does, or write into closed ones."""
    for pool in subject.pools:
        options = protocol_options(pool)
        timeout = options.get("common_http_protocol_options", "idle_timeout")
        older = pool.get("common_http_protocol_options", "idle_timeout")
        # The options of before hold only where there are none of now.
        held_s = timeout.seconds if timeout or options else older.seconds
        if held_s is None or held_s >= KEEP_ALIVE_S or held_s == 0:
            held = f"{held_s:g} s" if held_s else "ever" if held_s == 0 else _DEFAULT
            yield Fault(
                timeout if timeout or not older else older,
                f"Envoy keeps idle connections for {held}, engines close them after "
                f"{KEEP_ALIVE_S:g} s: a request written in between is lost",
                (_shorter_idle(subject, options, timeout),),
            )


def no_endpoint(subject: Subject) -> Iterator[Fault]:
    """A cluster without hosts answers 503."""
    for pool in subject.pools:
        if not has_endpoints(pool):
            yield Fault(
                pool.get("load_assignment"),
                "the pool has no endpoint: every request is answered 503",
            )


def pool_health_check(subject: Subject) -> Iterator[Fault]:
    """While Lodestar is away, only Envoy's own checks keep requests from an engine that hangs."""
    for pool in subject.pools:
        checks = pool.get("health_checks")
        if not list(checks.items()):
            yield Fault(
                checks,
                "while Lodestar is away, nothing keeps requests from an engine that hangs",
                (subject.put(checks, [stanzas.engine_health_check()]),),
            )


def connect_timeout(subject: Subject) -> Iterator[Fault]:
    """The next engine is tried only when the connection to the one before has failed."""
    for pool in subject.pools:
        timeout = pool.get("connect_timeout")
        held_s = timeout.seconds if timeout else 5.0
        if held_s is None or held_s > CONNECT_S:
            yield Fault(
                timeout,
                f"an engine whose machine is gone is given up only after {held_s or 5:g} s",
                (subject.put(timeout, "0.5s"),),
            )


_DEFAULT = "an hour, Envoy's default"


def _shorter_idle(subject: Subject, options: Node, timeout: Node) -> Patch:
    if options:
        return subject.put(timeout, IDLE_TIMEOUT)
    whole = stanzas.http_options(
        common_http_protocol_options={"idle_timeout": IDLE_TIMEOUT},
        explicit_http_config={"http_protocol_options": {}},
    )
    return subject.put(options, whole)
