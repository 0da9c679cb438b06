"""StateChange: one change of state, in words that say what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class ChangeKind(StrEnum):
    """What changed."""

    ENDPOINT_JOINED = "endpoint_joined"
    ENDPOINT_LEFT = "endpoint_left"
    ENDPOINT_UP = "endpoint_up"
    ENDPOINT_DOWN = "endpoint_down"
    ENDPOINT_EJECTED = "endpoint_ejected"
    ENDPOINT_REFUSED = "endpoint_refused"
    """It refuses what others serve, or answers with nothing."""
    ENDPOINT_FROZEN = "endpoint_frozen"
    ENDPOINT_SLEEPING = "endpoint_sleeping"
    ENDPOINT_DOUBTED = "endpoint_doubted"
    ENDPOINT_BELIEVED = "endpoint_believed"
    CACHES_OUTGROWN = "caches_outgrown"
    CACHES_SUFFICE = "caches_suffice"
    ALL_DOWN = "all_down"
    SOME_UP = "some_up"
    COLD = "cold"
    TRUST_GAINED = "trust_gained"
    TRUST_LOST = "trust_lost"
    DRIFT = "drift"
    CHOICES_IGNORED = "choices_ignored"
    CHOICES_FOLLOWED = "choices_followed"
    SETTINGS_APPLIED = "settings_applied"
    SETTINGS_REFUSED = "settings_refused"
    SETTINGS_NEED_RESTART = "settings_need_restart"


class Severity(StrEnum):
    """How loudly to say it, by the names of Python's logging."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_SEVERITIES: Mapping[ChangeKind, Severity] = MappingProxyType(
    {
        ChangeKind.ALL_DOWN: Severity.ERROR,
        ChangeKind.SETTINGS_REFUSED: Severity.ERROR,
        ChangeKind.ENDPOINT_DOWN: Severity.WARNING,
        ChangeKind.ENDPOINT_EJECTED: Severity.WARNING,
        ChangeKind.ENDPOINT_REFUSED: Severity.WARNING,
        ChangeKind.ENDPOINT_FROZEN: Severity.WARNING,
        ChangeKind.ENDPOINT_DOUBTED: Severity.WARNING,
        ChangeKind.CACHES_OUTGROWN: Severity.WARNING,
        ChangeKind.TRUST_LOST: Severity.WARNING,
        ChangeKind.DRIFT: Severity.WARNING,
        ChangeKind.CHOICES_IGNORED: Severity.WARNING,
        ChangeKind.SETTINGS_NEED_RESTART: Severity.WARNING,
    }
)


@dataclass(frozen=True, slots=True)
class StateChange:
    """One change.

    Attributes:
        number: counts up from 1, without gaps.
        wall_s: when, seconds since 1970.
        pool: whose; empty where it is the whole service's.
        endpoint: whose address; empty where it is the pool's.
        text: what changed, why, and what follows.
    """

    number: int
    wall_s: float
    kind: ChangeKind
    pool: str
    endpoint: str
    text: str

    @property
    def severity(self) -> Severity:
        """INFO for what is as it should be."""
        return _SEVERITIES.get(self.kind, Severity.INFO)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "number": self.number,
            "time_s": self.wall_s,
            "event": str(self.kind),
            "severity": str(self.severity),
            "pool": self.pool,
            "endpoint": self.endpoint,
            "text": self.text,
        }
