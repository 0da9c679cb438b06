"""Contenders: the policies a benchmark compares, each by name with settings of its own.

lmetric                          a fixed rule
learned                          the learned policy with default settings
learned:predictor=mlp+cost=ttft the same with others
learned@every_token              told every token of every stream, which no default Envoy tells
lodestar_paper                   the paper's router: its network, guard, fallback and filter
clairvoyant, clairvoyant_ttft    see the future of each engine
conductor, lmetric_by_speed      know each engine's true coefficients
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.old_spelling import names_before
from lodestar_extproc.config.setting import SettingError, settings_of
from lodestar_extproc.config.settings import PAPER_POLICY, PoolSettings
from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.evaluation.clairvoyant import Clairvoyant, Oracle
from lodestar_extproc.evaluation.every_token import EveryTokenFleet
from lodestar_extproc.evaluation.references import Conductor, LMetricBySpeed
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.learning.background import TrainingInPlace
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.sample import TrainingSample
from lodestar_extproc.learning.trust import Trust
from lodestar_extproc.policies.heuristics import HEURISTICS
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.routing.assembly import new_cost, new_learner, new_policy
from lodestar_extproc.routing.listener import RouterListener
from lodestar_extproc.routing.router import Router
from lodestar_extproc.simulator.machine import Machine

LEARNED = "learned"
EVERY_TOKEN = "@every_token"  # noqa: S105  (no password)
PAPER_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "policy": PAPER_POLICY,
        "predictor": "mlp",
        "fallback_policy": "prefix_cache",
        "burn_in_samples": 0,
        "trust_max_error_ratio": 1e9,
    }
)
"""It decides from its first training on, however wrong its predictions."""
OMNISCIENT = ("clairvoyant", "clairvoyant_ttft", "conductor", "lmetric_by_speed")


class NoContender(ValueError):  # noqa: N818  (the condition's name)
    """There is no such policy, or its settings are wrong."""


class NoLearner(Learner):
    """Learns nothing, beside policies that ask nothing of it."""

    learns = False

    def __init__(self, live: LiveSettings) -> None:
        super().__init__(EnginePredictor(), Trust(live))
        self._prefill_s_per_ktoken = np.empty(0)

    def prefill_s_per_ktoken(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """What is guessed before any sample, the same for all."""
        if len(self._prefill_s_per_ktoken) != len(endpoints):
            self._prefill_s_per_ktoken = super().prefill_s_per_ktoken(endpoints)
        return self._prefill_s_per_ktoken

    def learn(self, sample: TrainingSample) -> None:
        """Let it pass."""

    def interval_s(
        self,
        ttft_s: FloatArray,
        endpoints: Sequence[Endpoint],  # noqa: ARG002
    ) -> tuple[FloatArray, FloatArray]:
        """What is foreseen for policies that see the future is certain."""
        return ttft_s, ttft_s


@dataclass(frozen=True, slots=True)
class Contender:
    """One policy with its settings.

    Attributes:
        text: as it was asked for, and as reports name it.
    """

    text: str
    policy: str
    settings: PoolSettings
    every_token: bool = False

    @property
    def learns(self) -> bool:
        """Whether it is a learned policy."""
        return self.policy in (LEARNED, PAPER_POLICY)

    @property
    def is_heuristic(self) -> bool:
        """Whether it is one of the fixed rules that `serve` has, too."""
        return self.policy in HEURISTICS

    def router(
        self,
        machines: Sequence[Machine],
        oracle: Oracle,
        seed: int,
        *,
        index_ratio: float = 1.0,
        listeners: Sequence[RouterListener] = (),
    ) -> Router:
        """A router over all *machines* that knows nothing yet.

        Args:
            oracle: for those who see the future.
            index_ratio: size of the prefix index over that of the engine's cache.
        """
        bytes_per_token = self.settings.bytes_per_token * index_ratio
        live = LiveSettings(replace(self.settings, bytes_per_token=bytes_per_token))
        rng = random.Random(seed)
        learner = new_learner(live, rng, TrainingInPlace) if self.learns else NoLearner(live)
        endpoints = [m.endpoint for m in machines]
        fleet = (
            EveryTokenFleet(live, endpoints, oracle) if self.every_token else Fleet(live, endpoints)
        )
        return Router(
            "bench",
            live,
            fleet=fleet,
            policy=self._policy(live, learner, machines, oracle),
            fallback=HEURISTICS[self.settings.fallback_policy](),
            learner=learner,
            rng=rng,
            listeners=listeners,
        )

    def _policy(
        self, live: LiveSettings, learner: Learner, machines: Sequence[Machine], oracle: Oracle
    ) -> Policy:
        match self.policy:
            case "clairvoyant":
                return Clairvoyant(oracle, new_cost(live, learner))
            case "clairvoyant_ttft":
                return Clairvoyant(oracle, new_cost(live, learner, "ttft"))
            case "conductor":
                return Conductor(machines)
            case "lmetric_by_speed":
                return LMetricBySpeed(machines)
        return new_policy(live, learner, self.policy)


def parse_contender(text: str) -> Contender:
    """The contender that *text* names.

    Raises:
        NoContender: there is none, with what is allowed.
    """
    bare = text.removesuffix(EVERY_TOKEN)
    policy, _, overrides = bare.partition(":")
    names = (LEARNED, PAPER_POLICY, *HEURISTICS, *OMNISCIENT)
    if policy not in names:
        known = ", ".join(names)
        raise NoContender(f"no policy {policy!r}; there are {known}")
    changes: dict[str, Any] = {}
    for pair in overrides.split("+") if overrides else ():
        name, value = _override(pair)
        if name in changes:
            raise NoContender(f"{text} sets {name} twice")
        changes[name] = value
    try:
        settings = PoolSettings(**(_defaults(policy) | changes))
    except SettingError as error:
        raise NoContender(f"{text}: {error}") from None
    return Contender(text, policy, settings, every_token=bare != text)


def old_names(text: str) -> dict[str, str]:
    """The present name of each setting that *text* calls by another, by the other."""
    overrides = text.removesuffix(EVERY_TOKEN).partition(":")[2]
    written = {pair.partition("=")[0] for pair in overrides.split("+")}
    return {old: new for old, new in names_before(PoolSettings).items() if old in written}


def _defaults(policy: str) -> dict[str, Any]:
    return dict(PAPER_SETTINGS) if policy == PAPER_POLICY else {}


def _override(pair: str) -> tuple[str, Any]:
    written, found, value = pair.partition("=")
    key = names_before(PoolSettings).get(written, written)
    if not found or key not in settings_of(PoolSettings):
        raise NoContender(
            f"{pair!r} sets nothing: write setting=value, as in learned:predictor=mlp"
        )
    try:
        return key, orjson.loads(value)
    except orjson.JSONDecodeError:
        return key, value
