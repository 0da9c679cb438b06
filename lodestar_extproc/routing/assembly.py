"""Assembles a pool's router from its settings: what `serve`, the demo and the benchmarks share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from lodestar_extproc.config.settings import COSTS, PoolSettings
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.fleet.health import Health
from lodestar_extproc.learning.auto_predictor import AutoPredictor
from lodestar_extproc.learning.background import training_process
from lodestar_extproc.learning.bayesian_linear import BayesianLinearPredictor
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
from lodestar_extproc.routing.router import Router, RouterListener

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
) -> Router:
    """A router with a fleet of *endpoints* and nothing learned yet."""
    rng = random.Random(settings.seed) if rng is None else rng
    learner = new_learner(settings, rng)
    return Router(
        pool,
        settings,
        fleet=new_fleet(settings, endpoints),
        policy=new_policy(settings, learner),
        fallback=HEURISTICS[settings.fallback_policy](),
        shadows=[new_policy(settings, learner, name) for name in settings.shadow_policies],
        learner=learner,
        rng=rng,
        listeners=listeners,
        sees_first_tokens=sees_first_tokens,
    )


def apply_settings(router: Router, settings: PoolSettings) -> None:
    """Run *router* by new *settings*: only a change of predictor begins to learn anew."""
    learner = router.learner
    if settings.predictor != router.settings.predictor:
        learner.close()
        learner = new_learner(settings, random.Random(settings.seed))
    learner.trust.judge_by(
        burn_in_samples=settings.burn_in_samples,
        max_error_ratio=settings.trust_max_error_ratio,
    )
    router.fleet.judge_by(
        scrape_stale_s=settings.scrape_stale_s, frozen_after_s=settings.frozen_after_s
    )
    router.fleet.health.judge_by(
        unhealthy_threshold=settings.unhealthy_threshold,
        healthy_threshold=settings.healthy_threshold,
    )
    router.adopt(
        settings,
        learner,
        new_policy(settings, learner),
        HEURISTICS[settings.fallback_policy](),
        [new_policy(settings, learner, name) for name in settings.shadow_policies],
    )


def new_fleet(settings: PoolSettings, endpoints: Iterable[Endpoint] = ()) -> Fleet:
    """An idle fleet that judges by *settings*."""
    health = Health(
        unhealthy_threshold=settings.unhealthy_threshold,
        healthy_threshold=settings.healthy_threshold,
    )
    return Fleet(
        endpoints,
        health=health,
        bytes_per_token=settings.bytes_per_token,
        scrape_stale_s=settings.scrape_stale_s,
        frozen_after_s=settings.frozen_after_s,
    )


def new_learner(
    settings: PoolSettings,
    rng: random.Random,
    start_executor: Callable[[], Executor] = training_process,
) -> Learner:
    """A learner that knows nothing yet."""
    trust = Trust(
        burn_in_samples=settings.burn_in_samples,
        max_error_ratio=settings.trust_max_error_ratio,
    )
    return Learner(new_predictor(settings, rng, start_executor), trust)


def new_predictor(
    settings: PoolSettings,
    rng: random.Random,
    start_executor: Callable[[], Executor] = training_process,
) -> Predictor:
    """The predictor that *settings* name.

    Args:
        rng: seeds what is drawn in training.
        start_executor: where predictors that train in batches do so.

    Raises:
        ValueError: there is none of that name.
    """

    def rival(name: str) -> Callable[[], Predictor]:
        return lambda: new_predictor(replace(settings, predictor=name), rng, start_executor)

    match settings.predictor:
        case "engine":
            return EnginePredictor()
        case "bayesian_linear":
            return BayesianLinearPredictor()
        case "residual":
            return ResidualPredictor(rng, start_executor=start_executor)
        case "mlp":
            retrain_samples = settings.mlp_retrain_samples
            return MLPPredictor(rng, retrain_samples=retrain_samples, start_executor=start_executor)
        case "auto":
            return AutoPredictor([rival(name) for name in AUTO_PREDICTORS])
    raise ValueError(f"no predictor {settings.predictor!r}")


def new_policy(
    settings: PoolSettings,
    learner: Learner,
    name: str | None = None,
    cost: str | None = None,
) -> Policy:
    """A policy by *name* and *cost*; None takes the pool's own.

    Raises:
        ValueError: there is none of that name.
    """
    name = settings.policy if name is None else name
    if name in HEURISTICS:
        return HEURISTICS[name]()
    if name == LodestarPaper.name:
        return LodestarPaper(learner)
    if name != "learned":
        raise ValueError(f"no policy {name!r}; there are learned, {', '.join(HEURISTICS)}")
    return Learned(
        learner,
        new_cost(settings, learner, cost),
        HEURISTICS[settings.fallback_policy](),
        exploration_ratio=settings.exploration_ratio,
    )


def new_cost(settings: PoolSettings, learner: Learner, name: str | None = None) -> CostFunction:
    """A cost function by *name*; None takes the pool's own.

    Args:
        learner: knows how sure predictions are, and how long answers take.

    Raises:
        ValueError: there is none of that name.
    """
    name = settings.cost if name is None else name
    externality = Externality(
        settings.externality_weight,
        backlog_limit_s=settings.backlog_limit_s,
        # The end-to-end cost has a price of its own for slower tokens.
        decode_weight=0.0 if name == EndToEnd.name else settings.decode_weight,
        eviction_weight=settings.eviction_weight,
        memory_weight_s=settings.memory_weight_s,
    )
    match name:
        case "externality":
            return externality
        case "ttft":
            return GreedyTTFT()
        case "goodput":
            return Goodput(externality, learner.interval_s, settings.ttft_slo_s)
        case "end_to_end":
            return EndToEnd(externality, learner.generation_s, settings.generation_weight)
    raise ValueError(f"no cost {name!r}; there are {', '.join(COSTS)}")


def policy_for_route(router: Router, policy: str | None, cost: str | None) -> Policy:
    """What a route asks for, on the learner of *router*.

    Raises:
        ValueError: there is no such policy or cost.
    """
    return new_policy(router.settings, router.learner, policy, cost)
