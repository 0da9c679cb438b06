"""Health: which endpoints may be chosen. It knows probes and failures, not load."""

from __future__ import annotations

from collections.abc import Collection

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.fleet.answer_rate import odd_ratio
from lodestar_extproc.fleet.failed_prompts import FailedPrompts, Prompt
from lodestar_extproc.fleet.health_record import HealthRecord, count_prompt
from lodestar_extproc.fleet.health_state import HealthState

LONGEST_RETRY_AFTER_S = 300.0
"""What an endpoint may ask for: some send a date of tomorrow. A judgement."""
ERRORS_IN_A_ROW = 3
"""Wrong answers, each to another prompt, before an ejection: one bad prompt takes nobody out."""
SURPRISE_RATIO = 0.05
"""So improbable, at the rate of the others, must a run of odd answers be. The usual level."""
ALIKE_RATIO = 0.5
"""From here on the fleet as a whole answers oddly: clients, or what is behind, are to blame."""
MAX_EJECTIONS = 10  # beyond it the longest time has been reached


class Health:
    """The state of every endpoint; each event is one call.

    Failures eject for 1 s, doubling to 30 s, so that a dead endpoint is left at the first failure
    and a healthy one that failed once is back at once. Wrong answers, which no retry goes past,
    count by prompts and keep an endpoint out for 2 s, then 8, 32 and 60.
    """

    def __init__(self, live: LiveSettings) -> None:
        self._live = live
        self._records: dict[str, HealthRecord] = {}
        self._suspects: set[str] = set()
        self._failed_prompts = FailedPrompts()

    def add(self, address: str, joins_as: HealthState | None = None) -> None:
        """A new endpoint is healthy until it shows otherwise.

        Args:
            joins_as: what it is instead, until a probe or an answer has shown that it serves.
        """
        record = self._records.setdefault(address, HealthRecord(joins_as=joins_as))
        self._note(address, record)

    def remove(self, address: str) -> None:
        """Forget an endpoint that left."""
        self._records.pop(address, None)
        self._suspects.discard(address)
        self._failed_prompts.forget(address)

    def probed(self, address: str, *, healthy: bool) -> None:
        """An active probe answered, or did not."""
        record, settings = self._records.get(address), self._live.current
        if record is None:
            return
        if healthy:
            record.serves()
            record.probe_failures, record.probe_successes = 0, record.probe_successes + 1
            if record.probe_down and record.probe_successes >= settings.healthy_threshold:
                record.probe_down = False
                record.ejections = max(record.ejections, 1)  # re-admitted through probation
        else:
            record.probe_failures, record.probe_successes = record.probe_failures + 1, 0
            record.probe_down |= record.probe_failures >= settings.unhealthy_threshold
        self._note(address, record)

    # -- what became of requests --------------------------------------------------------------

    def errored(self, address: str, at_s: float, prompt: Prompt | None = None) -> bool:
        """It answered, but with an error of its own (5xx, an error event, an abort).

        Returns whether that speaks against it: not where it failed the same prompt before.
        """
        record = self._records.get(address)
        if record is None:
            return False
        counts = count_prompt(record.errors, prompt)
        self._failed_prompts.add(prompt, address, at_s)
        if counts and len(record.errors) >= ERRORS_IN_A_ROW:
            self._take_out(address, record, at_s)
        return counts

    def refused(
        self,
        address: str,
        at_s: float,
        prompt: Prompt | None = None,
        *,
        needed: int = ERRORS_IN_A_ROW,
        retry_after_s: float | None = None,
    ) -> bool:
        """It answered oddly: refused, or gave no answer under a good status.

        That is judged against what the others do: where they do alike, nobody is blamed.

        Args:
            needed: so many in a row, each to another prompt, before it is blamed; one is enough
                on probation, or where it says how long to wait.

        Returns whether it is taken out for it.
        """
        record = self._records.get(address)
        if record is None:
            return False
        record.rate.add(at_s, odd=True)
        count_prompt(record.odd_answers, prompt)
        self._failed_prompts.add(prompt, address, at_s)
        others = odd_ratio([r.rate.at(at_s) for a, r in self._records.items() if a != address])
        if others >= ALIKE_RATIO:
            self._end_cooling()
            return False
        run = len(record.odd_answers)
        if retry_after_s is not None or record.ejections > 0:
            needed = 1
        if run < needed or others**run > SURPRISE_RATIO:
            return False
        asked_s = min(retry_after_s or 0.0, LONGEST_RETRY_AFTER_S)
        self._take_out(address, record, at_s, cooling=True, at_least_s=asked_s)
        return True

    def failed(
        self,
        address: str,
        at_s: float,
        prompt: Prompt | None = None,
        *,
        in_mid_answer: bool = False,
    ) -> bool:
        """It could not be reached, refused the connection, or broke off.

        Args:
            prompt: what it broke off at, where it had been reached; None where it had not.
            in_mid_answer: after a first token, which then proves nothing any more.

        Returns whether that speaks against it: not where the same prompt broke another before.
        """
        record = self._records.get(address)
        if record is None:
            return False
        if prompt is not None:
            guilty = any(a != address for a in self._failed_prompts.of(prompt, at_s))
            self._failed_prompts.add(prompt, address, at_s)
            if guilty:
                return False
        if at_s < record.out_until_s:
            return True
        record.breaks += in_mid_answer
        if record.breaks > 1:
            self._take_out(address, record, at_s)
        else:
            self._leave_until(address, record, at_s + record.ejection_s)
        return True

    def pardon(self, address: str) -> None:
        """Its last failure was none: nothing had been sent to it."""
        record = self._records.get(address)
        if record is not None and record.ejections and not record.answers_wrongly:
            record.ejections -= 1
            record.out_until_s = float("-inf")
            self._note(address, record)

    def first_token(self, address: str, at_s: float) -> None:
        """A first token came; what follows it may still be an error."""
        record = self._records.get(address)
        if record is not None and (record.frozen or record.ejections or not record.known_good):
            record.serves()
            record.frozen = False
            # During an ejection only what was sent before it can succeed, which says nothing new.
            if at_s >= record.out_until_s and not record.answers_wrongly:
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

    def succeeded(self, address: str, at_s: float, prompt: Prompt | None = None) -> None:
        """A whole answer came, with tokens."""
        record = self._records.get(address)
        if record is None:
            return
        record.rate.add(at_s, odd=False)
        if prompt is not None and self._failed_prompts:
            self._failed_prompts.served(prompt)
        if not (record.is_suspect or record.frozen or not record.known_good):
            return
        record.serves()
        record.frozen = False
        if at_s >= record.out_until_s:
            if record.ejections:
                self._failed_prompts.forget(address)
            record.clear()
        self._note(address, record)

    def stalled(self, address: str, at_s: float) -> None:
        """It stands still in the middle of answers, while others progress."""
        record = self._records.get(address)
        if record is not None:
            self._take_out(address, record, at_s)

    def trial_failed(self, address: str, at_s: float) -> None:
        """A client left an answer that stood still: no proof, but on probation enough."""
        record = self._records.get(address)
        if record is not None and record.answers_wrongly:
            self._take_out(address, record, at_s)

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

    # -- what a decision asks -----------------------------------------------------------------

    def state(self, address: str, at_s: float) -> HealthState:
        """What *address* may be given now; an unknown address is down."""
        record = self._records.get(address)
        return HealthState.DOWN if record is None else record.state(at_s)

    def is_untried(self, address: str) -> bool:
        """Whether it joined others that are known to serve, and has not shown that it does."""
        return address in self._records and self._records[address].joins_as is not None

    def is_suspect(self, address: str) -> bool:
        """Whether anything speaks against it, if not enough to take it out."""
        return address in self._records and self._records[address].is_suspect

    def failed_with(self, prompt: Prompt, at_s: float) -> Collection[str]:
        """The endpoints that failed *prompt* lately."""
        return self._failed_prompts.of(prompt, at_s) if self._failed_prompts else ()

    @property
    def any_known_good(self) -> bool:
        """Whether any endpoint has shown that it serves, and nothing bars it."""
        return any(record.known_good and not record.bars for record in self._records.values())

    @property
    def all_healthy(self) -> bool:
        """True when nothing bars any endpoint; the common case, kept cheap."""
        return not self._suspects

    # -- changes of state ---------------------------------------------------------------------

    def _take_out(
        self,
        address: str,
        record: HealthRecord,
        at_s: float,
        *,
        cooling: bool = False,
        at_least_s: float = 0.0,
    ) -> None:
        """For an endpoint that answers, and wrongly; what was sent before is no news."""
        record.answers_wrongly = True
        if at_s < record.out_until_s:
            return
        out_s = max(record.cooling_s, at_least_s)
        self._leave_until(address, record, at_s + out_s, cooling=cooling)

    def _leave_until(
        self, address: str, record: HealthRecord, until_s: float, *, cooling: bool = False
    ) -> None:
        record.out_until_s, record.cooling = until_s, cooling
        record.ejections = min(record.ejections + 1, MAX_EJECTIONS)
        self._note(address, record)

    def _end_cooling(self) -> None:
        """All answer alike: those that were taken out for it were not to blame."""
        for address, record in self._records.items():
            record.odd_answers.clear()
            if record.ejections and record.cooling:
                record.out_until_s = float("-inf")
                record.clear()
                self._note(address, record)

    def _note(self, address: str, record: HealthRecord) -> None:
        if record.bars:
            self._suspects.add(address)
        else:
            self._suspects.discard(address)
