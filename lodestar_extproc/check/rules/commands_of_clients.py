"""A hint: headers that a setting trusts, and that clients may send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Fault
from lodestar_extproc.config.members import settings_block
from lodestar_extproc.names import MODEL_REWRITE_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Gateway, Subject


def trusted_headers(subject: Subject) -> Iterator[Fault]:
    """Whoever renames the model by a header is a client, unless his headers are removed first."""
    for pool in subject.pools:
        trusted = settings_block(pool).get("trusted_headers")
        if "model_rewrite" not in [each.text for each in trusted.items()]:
            continue
        gateways = [gateway for gateway in subject.gateways if gateway.routes]
        for header in MODEL_REWRITE_HEADERS:
            if not all(removes_early(gateway, header) for gateway in gateways):
                yield Fault(
                    trusted,
                    f"any client may choose the model by {header}: remove it from what clients "
                    "send, by early_header_mutation_extensions, or trust no model_rewrite",
                )


def removes_early(gateway: Gateway, header: str) -> bool:
    """Whether *gateway* removes *header* from what clients send, before any filter."""
    return any(
        mutation.get("remove").text.lower() == header.lower()
        for extension in gateway.manager.config.get("early_header_mutation_extensions").items()
        for mutation in extension.get("typed_config", "mutations").items()
    )
