"""settle_overcounted(): ends, as expired, what an engine has long finished and nobody told of."""

from __future__ import annotations

from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.routing.router import Router


def settle_overcounted(router: Router, at_s: float) -> int:
    """End those requests of *router*; to be called once a second. Returns how many there were.

    An end that comes all the same is then one of an unknown request: it changes nothing.
    """
    over = router.fleet.overcounted(at_s)
    for decision_id in over:
        router.complete(Completion(at_s, Outcome.EXPIRED, decision_id=decision_id))
    return len(over)
