"""unseen_parts(): what stands in the configuration and cannot be judged from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.config.not_looked_at import NotLookedAt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Subject


def unseen_parts(subject: Subject) -> Iterator[NotLookedAt]:
    """The parts of *subject* that a request decides about, or an extension that is not known."""
    for gateway in subject.gateways:
        for ext_proc in gateway.filters:
            if ext_proc.conditional:
                what = f"for which requests {ext_proc.name} runs: a matcher decides"
                yield NotLookedAt(what, ext_proc.place)
    for _, route in subject.ways:
        for place in (route.node.get("route"), route.host):
            if typed := place.get("retry_policy_typed_config"):
                yield NotLookedAt("a retry policy that is an extension", typed)
