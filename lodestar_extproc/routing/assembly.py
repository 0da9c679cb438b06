"""Assembles a pool's router from its settings: what `serve`, the demo and the benchmarks share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import COSTS, PoolSettings
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.learning.auto_predictor import AutoPredictor
from lodestar_extproc.learning.background import training_process
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.mlp import MLPPredictor
from lodestar_extproc.learning.predictor import Predictor
from lodestar_extproc.learning.residual_predictor import ResidualPredictor
from lodestar_extproc.learning.trust import Trust
from lodestar_extproc.policies.cost import CostFunction, Externality, GreedyTTFT
from lodestar_extproc.policies.end_to_end import EndToEnd
from lodestar_extproc.policies.goodput import Goodput
from lodestar_extproc.policies.heuristics import HEURISTICS
from lodestar_extproc.policies.learned import Learned
from lodestar_extproc.policies.paper import LodestarPaper
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.routing.listener import RouterListener
from lodestar_extproc.routing.router import Router

AUTO_PREDICTORS = ("engine", "bayesian_linear", "residual")
"""Between which `auto` chooses; the first predicts until another is better."""


def new_router(
    pool: str,
    settings: PoolSettings,
    endpoints: Iterable[Endpoint] = (),
    *,
    rng: random.Random | None = None,
    listeners: Sequence[RouterListener] = (),
    sees_first_tokens: bool = True,
    origin: str = "",
) -> Router:
    """A router with a fleet of *endpoints* and nothing learned yet."""
    rng = random.Random(settings.seed) if rng is None else rng
    live = LiveSettings(settings)
    learner = new_learner(live, rng)
    router = Router(
        pool,
        live,
        fleet=Fleet(live, endpoints),
        policy=new_policy(live, learner),
        fallback=HEURISTICS[settings.fallback_policy](),
        shadows=new_shadows(live, learner),
        learner=learner,
        rng=rng,
        listeners=listeners,
        sees_first_tokens=sees_first_tokens,
    )
    router.origin = origin
    return router


def apply_settings(router: Router, settings: PoolSettings) -> None:
    """Run *router* by new *settings*, which its parts read from now on.

    Only what a setting names is made anew: a policy, a cost function, and the learner where the
    predictor is another. The setting of a restart is for the caller to keep (`until_restart`).
    """
    live, learner = router.live, router.learner
    before, live.current = live.current, settings
    if settings.predictor != before.predictor:
        learner.close()
        learner = new_learner(live, random.Random(settings.seed))
    if _named_parts(settings) != _named_parts(before):
        router.adopt(
            learner,
            new_policy(live, learner),
            HEURISTICS[settings.fallback_policy](),
            new_shadows(live, learner),
        )


def _named_parts(settings: PoolSettings) -> tuple[object, ...]:
    """What is chosen by name, and made when it is chosen."""
    policies = settings.policy, settings.fallback_policy, settings.shadow_policies
    return (*policies, settings.cost, settings.predictor)


def new_learner(
    live: LiveSettings,
    rng: random.Random,
    start_executor: Callable[[], Executor] = training_process,
) -> Learner:
    """A learner that knows nothing yet."""
    return Learner(new_predictor(live, rng, start_executor), Trust(live))


def new_predictor(
    live: LiveSettings,
    rng: random.Random,
    start_executor: Callable[[], Executor] = training_process,
    name: str | None = None,
) -> Predictor:
    """A predictor by *name*; None takes the pool's own.

    Args:
        rng: seeds what is drawn in training.
        start_executor: where predictors that train in batches do so.

    Raises:
        ValueError: there is none of that name.
    """

    def rival(name: str) -> Callable[[], Predictor]:
        return lambda: new_predictor(live, rng, start_executor, name)

    name = live.current.predictor if name is None else name
    match name:
        case "engine":
            return EnginePredictor()
        case "bayesian_linear":
            # It needs much of scipy, and few choose it.
            from lodestar_extproc.learning.bayesian_linear import (  # noqa: PLC0415
                BayesianLinearPredictor,
            )

            return BayesianLinearPredictor()
        case "residual":
            return ResidualPredictor(rng, start_executor=start_executor)
        case "mlp":
            return MLPPredictor(rng, live, start_executor=start_executor)
        case "auto":
            return AutoPredictor([rival(name) for name in AUTO_PREDICTORS])
    raise ValueError(f"no predictor {name!r}")


def new_shadows(live: LiveSettings, learner: Learner) -> list[Policy]:
    """The policies that are scored beside the pool's own."""
    return [new_policy(live, learner, name) for name in live.current.shadow_policies]


def new_policy(
    live: LiveSettings,
    learner: Learner,
    name: str | None = None,
    cost: str | None = None,
) -> Policy:
    """A policy by *name* and *cost*; None takes the pool's own.

    Raises:
        ValueError: there is none of that name.
    """
    name = live.current.policy if name is None else name
    if name in HEURISTICS:
        return HEURISTICS[name]()
    if name == LodestarPaper.name:
        return LodestarPaper(learner)
    if name != "learned":
        raise ValueError(f"no policy {name!r}; there are learned, {', '.join(HEURISTICS)}")
    return Learned(
        learner,
        new_cost(live, learner, cost),
        HEURISTICS[live.current.fallback_policy](),
        live,
    )


def new_cost(live: LiveSettings, learner: Learner, name: str | None = None) -> CostFunction:
    """A cost function by *name*; None takes the pool's own.

    Args:
        learner: knows how sure predictions are, and how long answers take.

    Raises:
        ValueError: there is none of that name.
    """
    name = live.current.cost if name is None else name
    # The end-to-end cost has a price of its own for slower tokens.
    externality = Externality(live, prices_slower_tokens=name != EndToEnd.name)
    match name:
        case "externality":
            return externality
        case "ttft":
            return GreedyTTFT()
        case "goodput":
            return Goodput(externality, learner.interval_s, live)
        case "end_to_end":
            return EndToEnd(externality, learner.generation_s, live)
    raise ValueError(f"no cost {name!r}; there are {', '.join(COSTS)}")


def policy_for_route(router: Router, policy: str | None, cost: str | None) -> Policy:
    """What a route asks for, on the learner of *router*.

    Raises:
        ValueError: there is no such policy or cost.
    """
    return new_policy(router.live, router.learner, policy, cost)
