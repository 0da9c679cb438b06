"""Hints on several replicas: that they share, and not their password with the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Fault
from lodestar_extproc.config.callee import address_text
from lodestar_extproc.config.members import settings_block
from lodestar_extproc.config.share import is_local, parse_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.node import Node


def replicas_share_nothing(subject: Subject) -> Iterator[Fault]:
    """Each counts its own requests alone: 1.2 to 2.3 times the mean TTFT with two of them.

    Several on this machine may be workers of one `serve`, which share; a standby of another
    priority waits for its turn.
    """
    most = max(map(_first_choices, subject.service.clusters), key=len, default=())
    if len(most) < 2 or all(map(is_local, most)):
        return
    for pool in subject.pools:
        block = settings_block(pool)
        if not block.get("share").text:
            yield Fault(
                block,
                f"{len(most)} replicas share nothing, and each balances by its own requests alone: "
                "write share: redis://HOST:6379",
            )


def share_password_in_clear(subject: Subject) -> Iterator[Fault]:
    """Whoever listens on the way, or may read this file, can publish what replicas believe."""
    for pool in subject.pools:
        share = settings_block(pool).get("share")
        try:
            target = parse_share(share.text)
        except ValueError:  # the rule `settings` says so
            continue
        remote = any(not is_local(f"{host}:{port}") for host, port in target.hosts)
        if target.password and remote and not target.tls:
            yield Fault(
                share,
                "the password of the store crosses the network in clear, and so do all frames: "
                "write rediss://, and put the password into LODESTAR_SHARE_PASSWORD",
            )


def _first_choices(cluster: Node) -> tuple[str, ...]:
    """Addresses of the endpoints that Envoy asks while they are healthy."""
    localities = [
        (locality.get("priority").number or 0, locality)
        for locality in cluster.get("load_assignment", "endpoints").items()
    ]
    first = min((priority for priority, _ in localities), default=0)
    entries = (
        entry
        for priority, locality in localities
        if priority == first
        for entry in locality.get("lb_endpoints").items()
    )
    return tuple(filter(None, (address_text(e.get("endpoint", "address")) for e in entries)))
