"""Knowledge: what a process that has just begun gets from one of the others, so as not to be cold.

Requests in flight come with everybody's whole frames; this is what they do not say: what was
learned, which prompts the caches hold, and which answers engines keep.
"""

from __future__ import annotations

from array import array
from collections import deque
from contextlib import suppress

import orjson

from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame
from lodestar_extproc.request import HASH_TYPE
from lodestar_extproc.routing.router import Router
from lodestar_extproc.sharing.inbox import MAX_PEERS
from lodestar_extproc.sharing.kept_columns import MAX_KNOWN_BLOCKS, take_all, write_all
from lodestar_extproc.sharing.outbox import MAX_BLOCKS, MAX_EVENTS

MAX_KEPT = 2_000
"""Answers that engines keep, the most recently used: 4 ms to write, once, and 20 to read."""


class Knowledge:
    """Asks for it once, and answers others.

    Args:
        origin: our name; of those who know something, the first by name answers.
    """

    def __init__(self, origin: str, router: Router) -> None:
        self.is_wanted = True
        self._origin = origin
        self._router = router
        self._newcomers: set[str] = set()
        self._answered: deque[str] = deque(maxlen=MAX_PEERS)

    def heard(self, frame: Frame, at_s: float) -> None:
        """A frame came: of one who asks, or of one who answers."""
        if frame.knows_nothing and frame.origin not in self._answered:
            self._newcomers.add(frame.origin)
        if self.is_wanted and (frame.learner or frame.cached):
            self.is_wanted = False
            self._take(frame, at_s)

    def answers(self, peers: frozenset[str]) -> bool:
        """Whether the next frame is to tell a newcomer what we know."""
        others = peers - self._newcomers
        is_ours = self._origin == min(others | {self._origin})
        return bool(self._newcomers) and is_ours and not self.is_wanted

    def write(self, frame: Frame, *, answers: bool) -> None:
        """Ask in *frame*, or answer, where it *answers*."""
        frame.knows_nothing = self.is_wanted
        newcomers, self._newcomers = self._newcomers, set()
        if not newcomers or self.is_wanted:
            return
        self._answered.extend(newcomers)
        if answers:
            frame.learner = orjson.dumps(self._router.learner.state())
            for address, hashes in self._router.fleet.peers.cached(MAX_KNOWN_BLOCKS):
                frame.cached.add(address=address, block_hashes=hashes)
            write_all(frame.known_kept, self._router.kept_answers.recent(MAX_KEPT))

    def give_up(self) -> None:
        """Nobody answers: go on from nothing."""
        self.is_wanted = False

    def _take(self, frame: Frame, at_s: float) -> None:
        prompts = frame.cached[: MAX_EVENTS * 10]
        self._router.fleet.peers.place(
            [(each.address, array(HASH_TYPE, each.block_hashes[:MAX_BLOCKS])) for each in prompts]
        )
        take_all(frame.known_kept, self._router.kept_answers, at_s)
        # Of another predictor, another version, or no state at all.
        with suppress(ValueError, TypeError, AttributeError):
            state = orjson.loads(frame.learner or b"{}")
            # The few samples of our first moments count less than all of theirs.
            if state.get("n_learned", 0) > self._router.learner.status().n_samples:
                self._router.learner.restore(state)
