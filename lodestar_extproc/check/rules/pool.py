"""Traps in the engines' cluster: is the choice applied, and by whom may it be made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.clusters import max_requests, protocol_options
from lodestar_extproc.check.finding import Fault, drop
from lodestar_extproc.config.members import settings_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.finding import Patch
    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.node import Node

KEEP_ALIVE_S = 5.0
"""vLLM and SGLang serve by uvicorn, which closes idle connections after 5 s."""
IDLE_TIMEOUT = "4s"


def override_host(subject: Subject) -> Iterator[Fault]:
    """Envoy balances on its own unless the cluster takes the choice."""
    for pool in subject.pools:
        shadow = settings_block(pool).get("shadow").flag
        if not shadow and not _override_sources(pool):
            policies = pool.get("load_balancing_policy", "policies")
            patches = [subject.put(policies, [stanzas.override_host()])]
            # Envoy allows only one of the two ways to name a policy.
            if pool.get("lb_policy"):
                patches.append(drop(pool.get("lb_policy")))
            yield Fault(
                policies,
                "Envoy ignores the choice: the cluster has no override_host policy "
                "(with `shadow: true` that is meant)",
                tuple(patches),
            )


def header_override(subject: Subject) -> Iterator[Fault]:
    """A client could send the header, and so choose its engine."""
    for pool in subject.pools:
        for source in _override_sources(pool).items():
            header = source.get("header")
            if header and not _clients_cannot_send(subject, header.text):
                yield Fault(
                    header,
                    f"a client that sends {header.text} chooses its own engine; metadata cannot "
                    "be sent by clients",
                    (subject.put(source, stanzas.metadata_source()),),
                )


def idle_timeout(subject: Subject) -> Iterator[Fault]:
    """Envoy must close idle connections before the engine does, or write into closed ones."""
    for pool in subject.pools:
        options = protocol_options(pool)
        timeout = options.get("common_http_protocol_options", "idle_timeout")
        older = pool.get("common_http_protocol_options", "idle_timeout")
        held_s = timeout.seconds or older.seconds
        if held_s is None or held_s >= KEEP_ALIVE_S:
            held = f"{held_s:g} s" if held_s else "an hour, Envoy's default"
            yield Fault(
                timeout if timeout or not older else older,
                f"Envoy keeps idle connections for {held}, engines close them after "
                f"{KEEP_ALIVE_S:g} s: a request written in between is lost",
                (_shorter_idle(subject, options, timeout),),
            )


def pool_max_requests(subject: Subject) -> Iterator[Fault]:
    """Envoy sends at most 1024 requests at once to a cluster that sets no limit."""
    for pool in subject.pools:
        limit, patches = max_requests(subject, pool)
        if not limit:
            yield Fault(
                limit,
                "at most 1024 requests run at once, Envoy's default; the others get 503. Set the "
                "limit you want",
                patches,
            )


def _override_sources(pool: Node) -> Node:
    for policy in pool.get("load_balancing_policy", "policies").items():
        config = policy.get("typed_extension_config", "typed_config")
        if config.type_name == "OverrideHost":
            return config.get("override_host_sources")
    return pool.get("load_balancing_policy", "override_host_sources")


def _clients_cannot_send(subject: Subject, header: str) -> bool:
    """Whether every gateway removes *header* from what clients send, before any filter."""
    return bool(subject.gateways) and all(
        any(
            mutation.get("remove").text.lower() == header.lower()
            for extension in gateway.manager.get("early_header_mutation_extensions").items()
            for mutation in extension.get("typed_config", "mutations").items()
        )
        for gateway in subject.gateways
    )


def _shorter_idle(subject: Subject, options: Node, timeout: Node) -> Patch:
    if options:
        return subject.put(timeout, IDLE_TIMEOUT)
    whole = stanzas.http_options(
        common_http_protocol_options={"idle_timeout": IDLE_TIMEOUT},
        explicit_http_config={"http_protocol_options": {}},
    )
    return subject.put(options, whole)
