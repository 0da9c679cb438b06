"""changed_settings(): what a new configuration changes, in words."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_extproc.config import PoolSettings


def changed_settings(old: PoolSettings, new: PoolSettings) -> str:
    """Every setting that differs, with both values; what else changed where none does.

    >>> from lodestar_extproc.config import PoolSettings
    >>> changed_settings(PoolSettings(), PoolSettings(policy="random"))
    "policy: 'learned' is now 'random'"
    """
    changes = [
        f"{field.name}: {getattr(old, field.name)!r} is now {getattr(new, field.name)!r}"
        for field in fields(old)
        if getattr(old, field.name) != getattr(new, field.name)
    ]
    return "; ".join(changes) or "endpoints' settings"
