"""Health: which endpoints may be chosen. It knows probes and failures, not load or prompts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lodestar_extproc.config.live_settings import LiveSettings

FIRST_EJECTION_S = 1.0
"""Not tuned: long enough for a retry to go elsewhere, too short to miss a healthy endpoint."""
ERRORS_IN_A_ROW = 3
"""Answers of 5xx before an ejection: one bad prompt must not take endpoints out. Not tuned."""
LONGEST_EJECTION_S = 30.0
"""Envoy's outlier detection takes a host out for as long at first (`base_ejection_time`)."""


class HealthState(StrEnum):
    """What an endpoint may be given."""

    HEALTHY = "healthy"
    EJECTED = "ejected"
    """Requests to it failed: nothing until the ejection ends."""
    PROBATION = "probation"
    """Back after an ejection: one request at a time until one succeeds."""
    DOWN = "down"
    """Active probes fail: nothing until they succeed."""
    SLEEPING = "sleeping"
    """Its engine says that it sleeps: nothing until it says that it is awake."""
    FROZEN = "frozen"
    """It holds prompts and gives no first token: nothing until it does."""


@dataclass(slots=True)
class _Record:
    probe_failures: int = 0
    probe_successes: int = 0
    probe_down: bool = False
    asleep: bool = False
    frozen: bool = False
    ejected_until_s: float = float("-inf")
    ejections: int = 0
    errors: int = 0


class Health:
    """The state of every endpoint; each event is one call.

    Failures eject for 1 s, doubling to 30 s, so that a dead endpoint is left at the first failure
    and a healthy one that failed once is back at once.
    """

    def __init__(self, live: LiveSettings) -> None:
        self._live = live
        self._records: dict[str, _Record] = {}
        self._suspects: set[str] = set()

    def add(self, address: str) -> None:
        """A new endpoint is healthy until it shows otherwise."""
        self._records.setdefault(address, _Record())

    def remove(self, address: str) -> None:
        """Forget an endpoint that left."""
        self._records.pop(address, None)
        self._suspects.discard(address)

    def probed(self, address: str, *, healthy: bool) -> None:
        """An active probe answered, or did not."""
        record, settings = self._records.get(address), self._live.current
        if record is None:
            return
        if healthy:
            record.probe_failures, record.probe_successes = 0, record.probe_successes + 1
            if record.probe_down and record.probe_successes >= settings.healthy_threshold:
                record.probe_down = False
                record.ejections = max(record.ejections, 1)  # re-admitted through probation
        else:
            record.probe_failures, record.probe_successes = record.probe_failures + 1, 0
            record.probe_down |= record.probe_failures >= settings.unhealthy_threshold
        self._note(address, record)

    def errored(self, address: str, at_s: float) -> None:
        """It answered, but with an error of its own (5xx, an error event in a stream)."""
        record = self._records.get(address)
        if record is not None:
            record.errors += 1
            if record.errors >= ERRORS_IN_A_ROW:
                self.failed(address, at_s)

    def failed(self, address: str, at_s: float) -> None:
        """It could not be reached, refused, or broke off."""
        record = self._records.get(address)
        if record is None or at_s < record.ejected_until_s:
            return
        ejection_s = min(LONGEST_EJECTION_S, FIRST_EJECTION_S * 2**record.ejections)
        record.ejected_until_s = at_s + ejection_s
        record.ejections = min(record.ejections + 1, 10)
        self._note(address, record)

    def succeeded(self, address: str, at_s: float) -> None:
        """A first token or a whole answer came."""
        record = self._records.get(address)
        if record is not None and (record.errors or record.frozen or record.ejections):
            record.errors = 0
            record.frozen = False
            # During an ejection only what was sent before it can succeed, which says nothing new.
            if at_s >= record.ejected_until_s:
                record.ejections = 0
            self._note(address, record)

    def slept(self, address: str, *, asleep: bool) -> bool:
        """Its engine said whether it sleeps; True where it has just begun to."""
        record = self._records.get(address)
        if record is None or record.asleep is asleep:
            return False
        record.asleep = asleep
        self._note(address, record)
        return asleep

    def froze(self, address: str) -> None:
        """It holds prompts for long without a first token, while others progress."""
        record = self._records.get(address)
        if record is not None and not record.frozen:
            record.frozen = True
            record.ejections = max(record.ejections, 1)
            self._note(address, record)

    def gave_up(self, address: str, at_s: float) -> None:
        """Nothing waits on it any more: if it was frozen it may be tried again, but not soon."""
        record = self._records.get(address)
        if record is not None and record.frozen:
            record.frozen = False
            self._note(address, record)
            self.failed(address, at_s)

    def state(self, address: str, at_s: float) -> HealthState:
        """What *address* may be given now; an unknown address is down."""
        record = self._records.get(address)
        if record is None or record.probe_down:
            return HealthState.DOWN
        if record.asleep:
            return HealthState.SLEEPING
        if record.frozen:
            return HealthState.FROZEN
        if at_s < record.ejected_until_s:
            return HealthState.EJECTED
        return HealthState.PROBATION if record.ejections else HealthState.HEALTHY

    @property
    def all_healthy(self) -> bool:
        """True when no endpoint has anything against it; the common case, kept cheap."""
        return not self._suspects

    def _note(self, address: str, record: _Record) -> None:
        if record.probe_down or record.asleep or record.frozen or record.ejections:
            self._suspects.add(address)
        else:
            self._suspects.discard(address)
