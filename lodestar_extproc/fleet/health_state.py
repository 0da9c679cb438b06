"""HealthState: what one endpoint may be given."""

from __future__ import annotations

from enum import StrEnum


class HealthState(StrEnum):
    """What an endpoint may be given."""

    HEALTHY = "healthy"
    EJECTED = "ejected"
    """Requests to it failed or stood still: nothing until the ejection ends."""
    COOLING = "cooling"
    """It refused what others serve, or answered with nothing: no request until that time ends."""
    PROBATION = "probation"
    """Back after either: one request at a time until one succeeds."""
    JOINING = "joining"
    """New, while others are known to serve: nothing until a first probe of it succeeds."""
    DOWN = "down"
    """Active probes fail: nothing until they succeed."""
    SLEEPING = "sleeping"
    """Its engine says that it sleeps: nothing until it says that it is awake."""
    FROZEN = "frozen"
    """It holds prompts and gives no first token: nothing until it does."""
