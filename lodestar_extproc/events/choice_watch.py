"""ChoiceWatch: whether Envoy goes where it is told, counted as requests end."""

from __future__ import annotations

from collections import deque

from lodestar_extproc.decision import Decision
from lodestar_extproc.events.change import ChangeKind
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.events.told_states import ToldStates
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken
from lodestar_extproc.routing.pool_view import PoolView

WINDOW = 50
"""Ended requests that are looked back on: seconds of a busy pool, minutes of a quiet one."""
MIN_REQUESTS = 10
"""With fewer nothing is said: one late answer is no news."""
IGNORED_RATIO, FOLLOWED_RATIO = 0.2, 0.05
"""Told from the first share on, and as over below the second. A judgement: retries and a stall of
a moment stay below."""


class ChoiceWatch:
    """A `RouterListener` of one pool, which tells *events* when it is asked to."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._told = ToldStates()
        self._told.begin("ignored", state=False, at_s=0.0)
        self._elsewhere: deque[str] = deque(maxlen=WINDOW)

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`: nothing is known yet."""

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`: whether it was a retry is known at the end."""

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`."""
        self._elsewhere.append(_ignored(request))

    def observe(self, view: PoolView, at_s: float) -> None:
        """Tell whether choices are ignored, where that has changed."""
        n, why = len(self._elsewhere), [each for each in self._elsewhere if each]
        if view.settings.shadow or n < MIN_REQUESTS:
            return
        was_ignored = bool(self._told.of("ignored"))
        is_ignored = len(why) > (FOLLOWED_RATIO if was_ignored else IGNORED_RATIO) * n
        if not self._told.turns("ignored", is_ignored, at_s):
            return
        if is_ignored:
            text = (
                f"Envoy does not go where it is told: {len(why)} of the last {n} requests "
                f"{why[-1]}. `lodestar-extproc check` on Envoy's file looks for the reason; an "
                "endpoint that Envoy itself holds unhealthy is passed over, too (/clusters there)"
            )
            self._events.tell(ChangeKind.CHOICES_IGNORED, text, pool=view.pool)
        else:
            text = f"Envoy goes where it is told again, with the last {n} requests"
            self._events.tell(ChangeKind.CHOICES_FOLLOWED, text, pool=view.pool)


def _ignored(request: EndedRequest) -> str:
    """How the choice was passed over, in words; empty where it was followed."""
    if not request.used:
        return "were sent on without waiting for the choice (message_timeout, or we are too slow)"
    if not request.is_ignored:
        return ""
    served, chosen = request.completion.served, request.decision.address
    return f"went elsewhere at their first attempt (the last to {served}, not {chosen})"
