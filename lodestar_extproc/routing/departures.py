"""Departures: decided requests leave, and are counted: in flight, in demand, by who listens.

Whoever waits for a decision need not wait for that. It knows neither loops nor transports: whoever
serves says how to be called in a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from lodestar_extproc.decision import Decision
from lodestar_extproc.fleet.demand import Demand
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.routing.dispatch import dispatch
from lodestar_extproc.routing.feedback import Feedback
from lodestar_extproc.routing.listener import RouterListener
from lodestar_extproc.routing.pool_policies import PoolPolicies, Shadowed

Soon = Callable[[Callable[[], None]], object]
"""Calls what it is given once what is under way is done, as `asyncio`'s `call_soon` does."""


class Departure(NamedTuple):
    """A request that was decided.

    Attributes:
        policy, shadowed: who was asked for it, and what the shadows said.
    """

    decision: Decision
    policy: Policy
    shadowed: Shadowed


class Departures:
    """Counts at once, until it is told how to be called in a moment.

    The router has it catch up before it looks at the fleet again, or is told what followed, so
    nobody sees a request missing. The parts are the router's.

    Args:
        observes: whether first tokens of streamed answers are seen.
    """

    def __init__(
        self,
        fleet: Fleet,
        demand: Demand,
        policies: PoolPolicies,
        feedback: Feedback,
        listener: RouterListener,
        *,
        observes: bool,
    ) -> None:
        self._fleet, self._demand = fleet, demand
        self._policies, self._feedback = policies, feedback
        self._listener = listener
        self._observes = observes
        self._soon: Soon | None = None
        self._waiting: deque[Departure] = deque()

    def count_later(self, soon: Soon | None) -> None:
        """Let those to come wait until *soon*; None for none, as before."""
        self._soon = soon
        if soon is None:
            self.catch_up()

    def add(self, departure: Departure) -> None:
        """Count it, now or in a moment."""
        self._waiting.append(departure)
        if self._soon is None:
            self.catch_up()
        else:
            self._soon(self.catch_up)

    def catch_up(self) -> None:
        """Count all that wait."""
        while self._waiting:
            self._count(self._waiting.popleft())

    def _count(self, departure: Departure) -> None:
        decision, policy, shadowed = departure
        candidates, learner = decision.candidates, self._feedback.learner
        dispatch(decision, self._fleet, self._demand, learner, observes=self._observes)
        candidates.let_go()
        self._policies.dispatched(candidates, decision.ranking, policy, shadowed)
        self._listener.decided(decision)
