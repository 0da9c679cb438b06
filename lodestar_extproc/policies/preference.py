"""preferred(), at_keeper(): what every policy's order is subject to.

Those are bounds on TPOT, loaded LoRA adapters, and who keeps what a prompt goes on from.
It moves endpoints behind others and keeps a policy's order among equals; it predicts nothing.
"""

from __future__ import annotations

import numpy as np

from lodestar_extproc.decision import Candidates, Ranking, Reason


def preferred(ranking: Ranking, candidates: Candidates, adapter_load_s: float) -> Ranking:
    """*ranking*, first those that meet the bound on TPOT, then those at hand for the adapter.

    Args:
        adapter_load_s: what an adapter costs where others have to leave for it; 0 for nothing.
    """
    late, far = candidates.misses_tpot, _far(candidates, adapter_load_s)
    order = tuple(sorted(ranking.order, key=lambda i: (late[i], far[i])))
    if order[0] == ranking.order[0]:
        return ranking.led_by(order)
    # The endpoint tried on purpose is not the one it goes to: what it goes to is no accident.
    reason = Reason.MODEL if ranking.reason is Reason.EXPLORATION else ranking.reason
    return ranking.led_by(order)._replace(reason=reason, propensity=1.0)


def at_keeper(ranking: Ranking, candidates: Candidates, address: str) -> Ranking:
    """*ranking*, first the endpoint at *address*: no other has what the request is about.

    As it is where that is no candidate, or the only one.
    """
    endpoints = candidates.snapshot.endpoints
    keeper = next((i for i in ranking.order if endpoints[i].address == address), None)
    if keeper is None or len(endpoints) == 1:
        return ranking
    order = (keeper, *(i for i in ranking.order if i != keeper))
    return ranking.led_by(order)._replace(reason=Reason.KEEPER, propensity=1.0)


def _far(candidates: Candidates, adapter_load_s: float) -> np.ndarray:
    """Endpoints that another is preferred to, for it has less to do to serve the adapter, [n].

    Waiting there may cost more than loading costs elsewhere: with e the effort (0 where it runs, 1
    where another has to leave), L the cost of loading and w the seconds of prefill ahead, the
    endpoint of the least w + e·L sets how much effort is still near.
    """
    effort = candidates.adapter_effort
    if effort is None:
        return np.zeros(len(candidates), dtype=bool)
    queued_tokens = candidates.snapshot.prefill_uncached_tokens
    wait_s = queued_tokens * candidates.prefill_s_per_ktoken / 1e3
    best = int(np.argmin(wait_s + effort * adapter_load_s))
    far: np.ndarray = effort > effort[best]
    return far if adapter_load_s > 0 else np.zeros_like(far)
