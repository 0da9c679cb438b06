"""KeptNews: what this replica hears of answers that engines keep, for the others, and theirs."""

from __future__ import annotations

from collections import deque

from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame
from lodestar_extproc.request import InferenceRequest
from lodestar_extproc.routing.router import Router
from lodestar_extproc.sharing.kept_columns import (
    MAX_KNOWN_BLOCKS,
    read_gone,
    read_kept,
    write_kept,
)
from lodestar_extproc.sharing.outbox import MAX_EVENTS, Outbox, key_of

MAX_RETOLD = 1_000
"""That are told again to who missed something: a second's and more."""


class KeptNews:
    """Gathers what `KeptAnswers` of *router* hears, and takes what others tell into it.

    Args:
        outbox: tells of the requests themselves.
    """

    def __init__(self, router: Router, outbox: Outbox) -> None:
        self._kept = router.kept_answers
        self._peers = router.fleet.peers
        # By key, with the key in frames of the request that it stands for.
        self._changed: dict[int, str] = {}
        self._gone: dict[int, str] = {}
        self._told: deque[int] = deque(maxlen=MAX_RETOLD)
        self._outbox = outbox
        self._kept.listener = self

    def heard(self, key: int, decision_id: str, at_s: float) -> None:
        """Tell it soon: who has its id may go on from it at once, and reach another replica."""
        request = key_of(decision_id) if decision_id else self._changed.get(key, "")
        self._gone.pop(key, None)
        self._changed[key] = request
        _bound(self._changed)
        self._outbox.hurry(at_s)

    def gone(self, key: int, address: str) -> None:
        """Tell it with the next frame."""
        self._changed.pop(key, None)
        self._gone[key] = address
        _bound(self._gone)

    def goes_on(self, decision_id: str, at_s: float) -> None:
        """Others count it until it is over, too."""
        self._outbox.goes_on(decision_id, at_s)

    def over(self, decision_id: str, at_s: float) -> None:
        """See `KeptListener`."""
        self._outbox.over(decision_id, at_s)

    def write(self, frame: Frame, *, again: bool) -> None:
        """Tell what was heard since the last frame; what was told lately too, where it is *again*.

        Nobody has the requests of an earlier frame, so hashes are told anew then; those of what a
        look-up was answered others have, or can do without.
        """
        changed = dict.fromkeys(self._told, "") | self._changed if again else self._changed
        found = [(key, self._kept.get(key), request) for key, request in changed.items()]
        known = [(key, kept, request) for key, kept, request in found if kept is not None]
        if known or self._gone:
            most_blocks = MAX_KNOWN_BLOCKS if again else 0
            write_kept(frame.kept, known, self._gone.items(), most_blocks)
        self._told.extend(self._changed)
        self._changed, self._gone = {}, {}

    def take(self, frame: Frame, at_s: float) -> None:
        """What the origin of *frame* has heard; its requests are taken before, their ends after."""

        def sent(key: str) -> InferenceRequest | None:
            return self._peers.request(frame.origin, key) if key else None

        for told in read_kept(frame.kept, at_s, sent):
            self._kept.take(told.key, told.kept)
        for key, address in read_gone(frame.kept):
            self._kept.take_gone(key, address, at_s)


def _bound(news: dict[int, str]) -> None:
    """A store that is away for an hour costs no memory: the oldest are told to nobody."""
    if len(news) > MAX_EVENTS:
        del news[next(iter(news))]
