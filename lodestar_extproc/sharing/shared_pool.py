"""SharedPool: one pool of this replica, and what it and the others tell each other of it.

Frames go out and come in here; how they travel, and when, is its owner's: a store in `serve`, the
agenda in virtual time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame, Handed
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.merging import gather
from lodestar_extproc.routing.ids import owner_of
from lodestar_extproc.routing.router import Router
from lodestar_extproc.sharing.failing import Failing
from lodestar_extproc.sharing.handed import HandedEvent, decode
from lodestar_extproc.sharing.inbox import EVERYBODY, Inbox
from lodestar_extproc.sharing.kept_news import KeptNews
from lodestar_extproc.sharing.knowledge import Knowledge
from lodestar_extproc.sharing.outbox import Outbox

WHOLE_EVERY_S = 10.0
"""All that is in flight is told so often besides: whatever goes wrong unseen lasts no longer."""
ASK_FOR_S = 2.0
"""For so long a new process asks what others know; they answer with their next frame."""
ANSWER_EVERY_S = 0.2
"""Who missed something is answered at most so often: one answer serves all who ask."""


class SharedPool:
    """Makes frames of one router's events, and takes those of others into it.

    Args:
        receive: is told what others heard of our requests.
    """

    def __init__(
        self,
        origin: str,
        interval_s: float,
        receive: Callable[[HandedEvent | None], None] = lambda _event: None,
    ) -> None:
        self.outbox = Outbox(origin, interval_s)
        self._origin = origin
        self._receive = receive
        self._whole_at_s = self._missed_at_s = -math.inf
        self._gathering: Learner | None = None

    def join(self, router: Router) -> None:
        """Share *router*, which has `outbox` among its listeners, from now on."""
        self._router = router
        self._failing = Failing(router.fleet)
        self._kept = KeptNews(router, self.outbox)
        self.inbox = Inbox(
            self._origin,
            router,
            self._kept.take,
            self._take_handed,
            self._failing.heard,
            self.outbox.sums.ask,
        )
        self._knowledge = Knowledge(self._origin, router)
        self._began_at_s: float | None = None
        self._has_asked = False

    def hand(self, owner: str, event: HandedEvent) -> bool:
        """Tell *owner* with the next frame; False where it is not heard of."""
        return owner in self.inbox.peers and self.outbox.hand(event)

    def frame(self, at_s: float) -> Frame:
        """What there is to tell now."""
        self._gather()
        since_s = at_s - self._whole_at_s
        is_asked = self.inbox.is_asked and since_s >= ANSWER_EVERY_S
        if since_s >= WHOLE_EVERY_S or is_asked:
            self._whole_at_s, self.inbox.is_asked = at_s, False
            self.outbox.tell_all()
        wanted = self.inbox.incomplete if self._has_asked else (EVERYBODY,)
        self._has_asked = True
        # What we know includes what was learned and not told yet: told now, it comes only once.
        answers = self._knowledge.answers(self.inbox.peers)
        frame = self.outbox.frame(
            at_s,
            failing=self._failing.news(at_s),
            wanted=wanted,
            missed=self._missed_sums(at_s),
            all_learned=answers,
        )
        self._kept.write(frame, again=is_asked)
        self._began_at_s = at_s if self._began_at_s is None else self._began_at_s
        if at_s - self._began_at_s > ASK_FOR_S:
            self._knowledge.give_up()
        self._knowledge.write(frame, answers=answers)
        return frame

    def _missed_sums(self, at_s: float) -> Mapping[str, list[int]]:
        """What is asked for; not again before it can have come."""
        if at_s - self._missed_at_s < ANSWER_EVERY_S:
            return {}
        missed = self.inbox.missed_sums
        self._missed_at_s = at_s if missed else self._missed_at_s
        return missed

    def is_own(self, frame: Frame) -> bool:
        """Whether we sent *frame* ourselves: a store gives it back."""
        return bool(frame.origin == self._origin)

    def receive(self, frame: Frame, at_s: float) -> bool:
        """Take up another's frame; False where it is none that is read here."""
        if not self.inbox.receive(frame, at_s, anew=self._knowledge.is_wanted):
            return False
        if not self.is_own(frame):
            self._knowledge.heard(frame, at_s)
        return True

    def cut_off(self) -> None:
        """Frames went nowhere for a while: tell and ask for everything next."""
        self._has_asked, self._whole_at_s = False, -math.inf
        self.outbox.start_anew()

    def _gather(self) -> None:
        """The learner may be another: a setting names the predictor."""
        if self._router.learner is not self._gathering:
            self._gathering = self._router.learner
            gather(self._gathering, self.outbox.sums.gathered)

    def _take_handed(self, handed: Handed, at_s: float) -> None:
        if owner_of(handed.decision_id or handed.stream_id) == self._origin:
            self._receive(decode(handed, at_s))
