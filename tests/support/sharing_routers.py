"""Routers of several replicas, in one process, that share through a real store or by hand."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from builders import a_request, a_router
from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.config.share import parse_share
from lodestar_extproc.decision import Decision
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame
from lodestar_extproc.routing.ids import new_origin
from lodestar_extproc.routing.router import Router
from lodestar_extproc.sharing.shared_pool import SharedPool
from lodestar_extproc.sharing.sharer import Sharer, ShareState


@dataclass
class Told:
    """What a listener was told."""

    states: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def share_state(self, _pool: str, state: str, _n_peers: int) -> None:
        if not self.states or self.states[-1] != str(state):
            self.states.append(str(state))

    def frames(self, _pool: str, result: str, n: int = 1) -> None:
        self.counts[result] = self.counts.get(result, 0) + n


class SharingRouter:
    """One replica's router of the pool, and what it shares it by."""

    def __init__(self, number: int, *, n_endpoints: int = 3, frame_s: float = 0.03, **settings):
        self.origin = new_origin(random.Random(number))
        self.shared = SharedPool(self.origin, frame_s)
        self.router: Router = a_router(
            n_endpoints,
            listeners=[self.shared.outbox],
            origin=self.origin,
            **{"seed": number, **settings},
        )
        self.shared.join(self.router)
        self.told = Told()
        self.sharer: Sharer | None = None

    @property
    def state(self) -> ShareState:
        assert self.sharer is not None
        return self.sharer.state

    def send(self, prompt: bytes = b"x" * 4000, at_s: float | None = None, **changes) -> Decision:
        at_s = time.monotonic() if at_s is None else at_s
        return self.router.route(a_request(prompt, **changes), request_id="r", at_s=at_s)

    def first_token(self, decision: Decision, at_s: float | None = None) -> None:
        at_s = time.monotonic() if at_s is None else at_s
        self.router.first_token(FirstToken(decision.decision_id, at_s, decision.address))

    def end(self, decision: Decision, at_s: float | None = None, **changes) -> None:
        at_s = time.monotonic() if at_s is None else at_s
        self.router.complete(
            Completion(
                at_s, Outcome.SERVED, decision.decision_id, served=decision.address
            )._replace(**changes)
        )

    def in_flight(self, at_s: float | None = None) -> list[float]:
        """By endpoint, as a decision would see it."""
        at_s = time.monotonic() if at_s is None else at_s
        return self.router.fleet.everything(at_s).in_flight.tolist()


def exchange(replicas: list[SharingRouter], at_s: float, lost: Callable[[], bool] = bool) -> None:
    """Every replica's frame to every other, at once, as bytes."""
    for sender in replicas:
        data = sender.shared.frame(at_s).SerializeToString()
        for receiver in replicas:
            if receiver is not sender and not lost():
                receiver.shared.receive(Frame.FromString(data), at_s)


@asynccontextmanager
async def sharing_through(
    url: str, n: int = 2, *, first: int = 1, **settings
) -> AsyncIterator[list[SharingRouter]]:
    """*n* replicas that share through the store at *url* until the block ends.

    Args:
        first: the number of the first: no two are to have the same.
    """
    target = parse_share(url)
    replicas = [SharingRouter(first + i, frame_s=target.frame_s, **settings) for i in range(n)]
    sharers = [Sharer("pool", target, each.shared, each.told) for each in replicas]
    tasks = [asyncio.create_task(sharer.run()) for sharer in sharers]
    for replica, sharer in zip(replicas, sharers, strict=True):
        replica.sharer = sharer
    try:
        yield replicas
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()  # none ends of itself
