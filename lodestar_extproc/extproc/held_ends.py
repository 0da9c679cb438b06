"""HeldEnds: an end that overtook what the observer has to say waits for it, for a short time.

Envoy sends the access log on one stream that is always open and each answer on a stream of its own,
so under load an end can come before the first token that it follows; what is told of an ended
request is heard no more. It knows ids, not what an end means.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from lodestar_extproc.completion import Completion

HOLD_S = 1.0
"""The longest wait: an event loop that is later than this is lost anyhow. Not tuned."""
MAX_OBSERVED = 100_000
"""Answers observed whose ends are to come: as many as streams may be open at once."""
MAX_PASSED = 1000
"""Ends passed on before their answers were observed, of which the last are remembered: an answer
that is observed a moment later has no end to come. A judgement: some seconds of clients that leave.
"""
MAX_IN_VAIN = 8
"""So many waits in vain, one after another, tell that no observer is there. A judgement."""
NO_CONTENT_STATUS = 204
"""RFC 9110, section 15.3.5: there is no body that could be observed."""


class HeldEnds:
    """Passes ends on, each once: at once, or when its answer has been observed.

    Args:
        complete: is told how each request ended.
    """

    def __init__(self, complete: Callable[[Completion], object]) -> None:
        self._complete = complete
        self._observed: OrderedDict[str, None] = OrderedDict()
        self._held: dict[str, tuple[Completion, asyncio.TimerHandle]] = {}
        self._passed: OrderedDict[str, None] = OrderedDict()
        # Until an answer is observed there is nothing to wait for.
        self._n_in_vain = MAX_IN_VAIN

    def observed(self, decision_id: str) -> None:
        """Nothing more will be told of the answer to this decision."""
        self._n_in_vain = 0
        held = self._held.pop(decision_id, None)
        if held is not None:
            completion, timer = held
            timer.cancel()
            self._complete(completion)
        elif decision_id in self._passed:
            del self._passed[decision_id]
        else:
            _keep(self._observed, decision_id, MAX_OBSERVED)

    def end(self, completion: Completion) -> None:
        """The access log told how a request ended."""
        decision_id = completion.decision_id
        if decision_id in self._observed:
            del self._observed[decision_id]
        elif self._is_owed(completion) and decision_id not in self._held:
            timer = asyncio.get_running_loop().call_later(HOLD_S, self._give_up, decision_id)
            self._held[decision_id] = completion, timer
            return
        elif decision_id:
            _keep(self._passed, decision_id, MAX_PASSED)
        self._complete(completion)

    def flush(self) -> None:
        """Wait for nothing any more."""
        for decision_id in list(self._held):
            self._give_up(decision_id)

    def _is_owed(self, completion: Completion) -> bool:
        """Whether an observer may still have a word to say of it."""
        if not completion.decision_id or self._n_in_vain >= MAX_IN_VAIN:
            return False
        begun = completion.served is not None and completion.response_code is not None
        bodiless = completion.is_empty or completion.response_code == NO_CONTENT_STATUS
        return begun and not bodiless

    def _give_up(self, decision_id: str) -> None:
        completion, timer = self._held.pop(decision_id)
        timer.cancel()
        self._n_in_vain += 1
        _keep(self._passed, decision_id, MAX_PASSED)
        self._complete(completion)


def _keep(ids: OrderedDict[str, None], one: str, most: int) -> None:
    ids[one] = None
    if len(ids) > most:
        ids.popitem(last=False)
