"""Frames: routers that share what they see, in virtual time, as replicas do through a store."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame
from lodestar_extproc.routing.router import Router
from lodestar_extproc.sharing.shared_pool import SharedPool
from lodestar_extproc.simulator.cluster import VirtualCluster

STORE_DELAY_S = 0.001
"""One way through a store near by: three times what Redis's pub/sub took on loopback."""


@dataclass(frozen=True, slots=True)
class Frames:
    """How routers share.

    Attributes:
        interval_s: between two frames of one.
        delay_s: of each on its way.
        loss_ratio: share of them that does not arrive.
    """

    interval_s: float
    delay_s: float = STORE_DELAY_S
    loss_ratio: float = 0.0

    def pools(self, n_routers: int) -> list[SharedPool]:
        """What each router is to be told of by, before it is made."""
        return [SharedPool(f"{number:08x}", self.interval_s) for number in range(1, n_routers + 1)]

    def plan(
        self,
        cluster: VirtualCluster,
        routers: Sequence[Router],
        pools: Sequence[SharedPool],
        seed: int,
    ) -> None:
        """Have them share while *cluster* runs."""
        for pool, router in zip(pools, routers, strict=True):
            pool.join(router)
        rng = random.Random(seed)
        for pool in pools:
            pool.outbox.on_news = partial(self._send, cluster, pool, pools, rng)
        cluster.repeat(self.interval_s, lambda: self._exchange(cluster, pools, rng))

    def _exchange(
        self, cluster: VirtualCluster, pools: Sequence[SharedPool], rng: random.Random
    ) -> None:
        for pool in pools:
            pool.inbox.age(cluster.now_s)
            self._send(cluster, pool, pools, rng)

    def _send(
        self,
        cluster: VirtualCluster,
        sender: SharedPool,
        pools: Sequence[SharedPool],
        rng: random.Random,
    ) -> None:
        """One frame to all others, of which some are lost."""
        at_s = cluster.now_s + self.delay_s
        frame = sender.frame(cluster.now_s)
        for receiver in pools:
            if receiver is not sender and rng.random() >= self.loss_ratio:
                cluster.tell(at_s, _Arrival(receiver, at_s).take, frame)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """One frame at one router."""

    pool: SharedPool
    at_s: float

    def take(self, frame: Frame) -> None:
        self.pool.receive(frame, self.at_s)
