"""Traps in the engines' balancing policy: is the choice applied, and by whom may it be made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.finding import Fault, Patch, drop
from lodestar_extproc.check.rules.commands_of_clients import removes_early
from lodestar_extproc.config.members import settings_block
from lodestar_extproc.names import DESTINATION, METADATA_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.node import Node

OVERRIDE_HOST = "OverrideHost"


def override_host(subject: Subject) -> Iterator[Fault]:
    """Envoy balances on its own unless the cluster takes the choice."""
    for pool in subject.pools:
        if settings_block(pool).get("shadow").flag:
            continue
        entries = list(pool.get("load_balancing_policy", "policies").items())
        ours = [entry for entry in entries if _config(entry).type_name == OVERRIDE_HOST]
        if not ours:
            yield _no_policy(subject, pool, entries)
        elif ours[0].path != entries[0].path:
            yield _not_first(entries, ours[0])
        elif not any(_takes_choice(source) for source in _sources(pool).items()):
            yield Fault(
                _sources(pool),
                f"Envoy ignores the choice: it stands in {METADATA_NAMESPACE} under {DESTINATION}, "
                "where the policy does not look",
                (subject.append(_sources(pool), stanzas.metadata_source()),),
            )


def header_override(subject: Subject) -> Iterator[Fault]:
    """A client could send the header, and so choose its engine."""
    for pool in subject.pools:
        for source in _sources(pool).items():
            header = source.get("header")
            if header and not _clients_cannot_send(subject, header.text):
                yield Fault(
                    header,
                    f"a client that sends {header.text} chooses its own engine; metadata cannot "
                    "be sent by clients",
                    (subject.put(source, stanzas.metadata_source()),),
                )


def _no_policy(subject: Subject, pool: Node, entries: list[Node]) -> Fault:
    policies = pool.get("load_balancing_policy", "policies")
    patches = [subject.insert(policies, 0, stanzas.override_host())]
    # Envoy allows only one of the two ways to name a policy.
    if pool.get("lb_policy"):
        patches.append(drop(pool.get("lb_policy")))
    first = f", its policy is {_config(entries[0]).type_name}" if entries else ""
    return Fault(
        policies,
        f"Envoy ignores the choice: the cluster has no override_host policy{first} "
        "(with `shadow: true` that is meant)",
        tuple(patches),
    )


def _not_first(entries: list[Node], ours: Node) -> Fault:
    """Move ours to the front; what was before it is what Envoy would take without it."""
    first = entries[0]
    moved = Patch(ours.file, ours.path), Patch(first.file, first.path, ours.value, inserts=True)
    return Fault(
        first,
        f"Envoy ignores the choice: it takes the first policy that it knows, "
        f"{_config(first).type_name}, and override_host stands behind it",
        moved,
    )


def _config(entry: Node) -> Node:
    return entry.get("typed_extension_config", "typed_config")


def _sources(pool: Node) -> Node:
    for policy in pool.get("load_balancing_policy", "policies").items():
        if _config(policy).type_name == OVERRIDE_HOST:
            return _config(policy).get("override_host_sources")
    return pool.get("load_balancing_policy", "override_host_sources")


def _takes_choice(source: Node) -> bool:
    keys = [step.get("key").text for step in source.get("metadata", "path").items()]
    by_metadata = source.get("metadata", "key").text == METADATA_NAMESPACE and keys == [DESTINATION]
    return by_metadata or source.get("header").text.lower() == DESTINATION


def _clients_cannot_send(subject: Subject, header: str) -> bool:
    """Whether every gateway removes *header* from what clients send, before any filter."""
    gateways = [gateway for gateway in subject.gateways if gateway.routes]
    return bool(gateways) and all(removes_early(gateway, header) for gateway in gateways)
