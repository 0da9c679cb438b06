"""Settings of state machines: short runs for every day, long ones for the slow tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def runs(n: int, n_steps: int) -> settings:
    """*n* runs of *n_steps* at most, however long they take."""
    return settings(
        max_examples=n,
        stateful_step_count=n_steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
