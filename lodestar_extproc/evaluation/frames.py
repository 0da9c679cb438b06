"""Frames: routers that share what they see, in virtual time, as replicas do through a store."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame
from lodestar_extproc.routing.router import Router
from lodestar_extproc.sharing.shared_pool import SharedPool
from lodestar_extproc.simulator.cluster import VirtualCluster

STORE_DELAY_S = 0.001
"""One way through a store near by: three times what Redis's pub/sub took on loopback."""


class Trouble(StrEnum):
    """What befalls the first router."""

    NONE = ""
    PARTED = "parted"
    """Cut off from the others for a sixth of the run; all go on deciding."""
    DIES = "dies"
    """It takes no more requests and says nothing more; what it sent is still computed."""


TROUBLE_AT, PARTED_FOR = 1 / 3, 1 / 6
"""Of the run: after what is left out of the figures, and so that most of it comes later."""


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
    trouble: Trouble = Trouble.NONE

    def pools(self, n_routers: int) -> list[SharedPool]:
        """What each router is to be told of by, before it is made."""
        return [SharedPool(f"{number:08x}", self.interval_s) for number in range(1, n_routers + 1)]

    def plan(
        self,
        cluster: VirtualCluster,
        routers: Sequence[Router],
        pools: Sequence[SharedPool],
        seed: int,
        run_s: float,
    ) -> None:
        """Have them share while *cluster* runs, for about *run_s*."""
        for pool, router in zip(pools, routers, strict=True):
            pool.join(router)
        network = _Network(self, cluster, pools, random.Random(seed))
        for pool in pools:
            pool.outbox.on_news = partial(network.send, pool)
        cluster.repeat(self.interval_s, network.exchange)
        if self.trouble is Trouble.NONE:
            return
        at_s = TROUBLE_AT * run_s
        cluster.plan(at_s, lambda: network.cut_off(pools[0]))
        if self.trouble is Trouble.DIES:
            cluster.plan(at_s, lambda: cluster.retire(routers[0]))
        else:
            cluster.plan(at_s + PARTED_FOR * run_s, lambda: network.reconnect(pools[0]))


class _Network:
    """Between the routers: all hear all, but for those who are cut off."""

    def __init__(
        self,
        frames: Frames,
        cluster: VirtualCluster,
        pools: Sequence[SharedPool],
        rng: random.Random,
    ) -> None:
        self._frames = frames
        self._cluster = cluster
        self._pools = tuple(pools)
        self._rng = rng
        self._cut_off: list[SharedPool] = []

    def cut_off(self, pool: SharedPool) -> None:
        """It hears nobody, and nobody hears it."""
        self._cut_off.append(pool)

    def reconnect(self, pool: SharedPool) -> None:
        """As a store's client that is back does: it tells and asks for everything."""
        self._cut_off.remove(pool)
        pool.cut_off()

    def exchange(self) -> None:
        """A frame of everybody; who is silent is given up."""
        for pool in self._pools:
            pool.inbox.age(self._cluster.now_s)
            self.send(pool)

    def send(self, sender: SharedPool) -> None:
        """One frame to all others, of which some are lost."""
        if sender in self._cut_off:
            return
        now_s = self._cluster.now_s
        at_s = now_s + self._frames.delay_s
        frame = sender.frame(now_s)
        for receiver in self._pools:
            if receiver is sender or receiver in self._cut_off:
                continue
            if self._rng.random() >= self._frames.loss_ratio:
                self._cluster.tell(at_s, _Arrival(receiver, at_s).take, frame)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """One frame at one router."""

    pool: SharedPool
    at_s: float

    def take(self, frame: Frame) -> None:
        self.pool.receive(frame, self.at_s)
