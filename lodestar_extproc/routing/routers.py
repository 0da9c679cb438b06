"""Routers: the router of each pool, and the policies that routes ask for in place of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lodestar_extproc.completion import AnswerReport, Completion, FirstToken, KeptAnswer
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.routing.router import Router


class UnknownPool(Exception):  # noqa: N818  (the condition's name)
    """A route or a decision names a pool that is not configured."""


class Routers:
    """Finds the router for a request, and for what is heard of it later.

    A pool has one router, whatever its routes ask for: load, demand and what is learned are the
    pool's.

    Args:
        make_policy: builds a policy for a router by name and cost; None takes the pool's own.
    """

    def __init__(
        self,
        routers: Iterable[Router],
        make_policy: Callable[[Router, str | None, str | None], Policy],
    ) -> None:
        self._pools = {r.pool: r for r in routers}
        self._make_policy = make_policy
        self._overrides: dict[tuple[str, str | None, str | None], Policy] = {}

    def __iter__(self) -> Iterator[Router]:
        return iter(self._pools.values())

    def get(self, pool: str | None = None) -> Router:
        """The router of *pool* (None: of the only pool).

        Raises:
            UnknownPool: no such pool, or none named where there are several.
        """
        if pool is None and len(self._pools) == 1:
            return next(iter(self._pools.values()))
        if pool in self._pools:
            return self._pools[pool]
        known = ", ".join(sorted(self._pools)) or "none"
        raise UnknownPool(f"no pool {pool!r}; configured: {known}")

    def override(
        self, pool: str | None = None, policy: str | None = None, cost: str | None = None
    ) -> Policy | None:
        """What a route asks for in place of the policy of *pool*, made once; None for nothing.

        Raises:
            UnknownPool: as of `get`.
            ValueError: there is no such policy or cost.
        """
        if policy is None and cost is None:
            return None
        router = self.get(pool)
        key = (router.pool, policy, cost)
        if key not in self._overrides:
            self._overrides[key] = self._make_policy(router, policy, cost)
        return self._overrides[key]

    @property
    def headers(self) -> frozenset[str]:
        """Names of the headers that settings ask for, in lower case."""
        return frozenset(router.settings.session_header.lower() for router in self)

    def first_token(self, event: FirstToken) -> None:
        """Tell the router whose decision it was."""
        router = self._pools.get(_pool_of(event.decision_id))
        if router is not None:
            router.first_token(event)

    def progressed(self, decision_id: str, at_s: float) -> None:
        """Tell the router whose decision it was."""
        router = self._pools.get(_pool_of(decision_id))
        if router is not None:
            router.progressed(decision_id, at_s)

    def kept(self, event: KeptAnswer) -> None:
        """Tell the router whose decision or look-up it was."""
        router = self._pools.get(_pool_of(event.decision_id))
        if router is not None:
            router.kept(event)

    def report(self, event: AnswerReport) -> None:
        """Tell the router whose decision it was."""
        router = self._pools.get(_pool_of(event.decision_id))
        if router is not None:
            router.report(event)

    def complete(self, event: Completion) -> bool:
        """Tell the router whose decision it was; without an id, each looks for the request.

        Returns False when no open decision is meant.
        """
        router = self._pools.get(_pool_of(event.decision_id))
        if router is not None:
            return router.complete(event)
        return not event.decision_id and any(r.complete(event) for r in self._pools.values())

    def draw_full_observation(self, decision_id: str) -> bool:
        """Draw whether this answer is watched to its end; once for each answer."""
        router = self._pools.get(_pool_of(decision_id))
        return router is not None and router.draw_full_observation(decision_id)

    def forget_overrides(self) -> None:
        """Settings changed: build the routes' own policies anew when they are next asked for."""
        self._overrides.clear()

    def expire(self, at_s: float) -> None:
        """End what nothing was heard of for too long."""
        for router in self._pools.values():
            router.expire(at_s)


def _pool_of(decision_id: str) -> str:
    return decision_id.rpartition(".")[0]
