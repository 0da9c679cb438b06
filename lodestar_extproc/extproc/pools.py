"""What an exchange asks of the pools, and how a route and its cluster name a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from lodestar_extproc.config.overrides import KEYS_BEFORE
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Decision
from lodestar_extproc.extproc.observation import AnswerRouters
from lodestar_extproc.names import COST, POLICY, POOL
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.request import InferenceRequest, Subset
from lodestar_extproc.routing.admission import AdmissionQueue, Ticket
from lodestar_extproc.routing.awaited_keepers import AwaitedKeepers
from lodestar_extproc.routing.look_ups import Lookup
from lodestar_extproc.routing.routers import UnknownPool

_KEYS = frozenset((POOL, POLICY, COST, *KEYS_BEFORE))


class PoolRouter(Protocol):
    """What an exchange asks of one pool; see `router.Router`."""

    @property
    def settings(self) -> PoolSettings: ...

    def bytes_per_token(self, model: str) -> float: ...

    def tokens_per_medium(self, model: str) -> float: ...

    @property
    def only_model(self) -> str: ...

    def draw_target_model(self, named: str) -> str: ...

    def look_up(self, name: str, at_s: float, subset: Subset | None = None) -> Lookup: ...

    @property
    def awaited(self) -> AwaitedKeepers: ...

    def route(
        self,
        request: InferenceRequest,
        *,
        request_id: str,
        stream_id: str = "",
        at_s: float,
        subset: Subset | None = None,
        policy: Policy | None = None,
        held_s: float = 0.0,
    ) -> Decision: ...

    def route_or_hold(
        self,
        request: InferenceRequest,
        *,
        request_id: str,
        stream_id: str = "",
        at_s: float,
        subset: Subset | None = None,
        policy: Policy | None = None,
    ) -> Decision | Ticket: ...

    @property
    def admission(self) -> AdmissionQueue: ...


class PoolRouters(AnswerRouters, Protocol):
    """What an exchange asks of all pools; see `routers.Routers`."""

    @property
    def headers(self) -> frozenset[str]: ...

    def get(self, pool: str | None) -> PoolRouter: ...

    def override(self, pool: str | None, policy: str | None, cost: str | None) -> Policy | None: ...


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a route sets for its requests, beside the pool's own settings."""

    pool: str | None = None
    policy: str | None = None
    cost: str | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Self:
        """What a stream's gRPC metadata says; a key of before counts where its own is not there."""
        if _KEYS.isdisjoint(metadata):
            return cls()
        old = KEYS_BEFORE.keys() & metadata.keys()
        sent = {KEYS_BEFORE[key]: metadata[key] for key in old} | dict(metadata)
        return cls(sent.get(POOL), sent.get(POLICY), sent.get(COST))

    def find(self, routers: PoolRouters, cluster: str | None) -> tuple[PoolRouter, Policy | None]:
        """The pool's router, and what is to decide in place of its own policy (None: nothing).

        By the route's own header, else by the cluster it leads to, else the only pool.

        Raises:
            UnknownPool: there is none of that name.
            ValueError: the pool knows no such policy or cost.
        """
        if self.pool is None and cluster is not None:
            try:
                return self._of(routers, cluster)
            except UnknownPool:
                pass
        return self._of(routers, self.pool)

    def paths(self, routers: PoolRouters, cluster: str | None) -> tuple[str, ...]:
        """The paths of its own that the pool names; none where no pool is found."""
        try:
            return self.find(routers, cluster)[0].settings.inference_paths
        except (UnknownPool, ValueError):
            return ()

    def _of(self, routers: PoolRouters, pool: str | None) -> tuple[PoolRouter, Policy | None]:
        return routers.get(pool), routers.override(pool, self.policy, self.cost)


NO_OVERRIDES = Overrides()
