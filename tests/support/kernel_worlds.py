"""Any state that a fleet, its demand and its learner can be in, for the kernel and its twins."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import strategies as st

from builders import a_request, an_endpoint, live_settings
from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import COLUMNS, FleetSnapshot
from lodestar_extproc.features import FEATURES, N_ENGINE
from lodestar_extproc.fleet.demand import DemandSnapshot
from lodestar_extproc.kernel.compiled import FOUND, KERNEL
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.trust import Trust

needs_the_kernel = pytest.mark.skipif(KERNEL is None, reason=f"no compiled kernel: {FOUND.words}")

ODD = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, np.inf, -np.inf, np.nan])
COUNT = st.integers(0, 40).map(float)
TOKENS = st.floats(0, 2e5)
USUAL = {
    "prefill_requests": COUNT,
    "decode_requests": COUNT,
    "running_requests": COUNT | st.just(np.nan),
    "waiting_requests": COUNT | st.just(np.nan),
    "kv_usage_ratio": st.floats(0, 1) | st.just(np.nan),
    "kv_capacity_tokens": st.floats(1e3, 1e6) | st.just(np.nan),
    "token_budget": st.floats(256, 16384),
    "decode_tokens_per_s": st.floats(1, 500),
    "prefill_pairs": st.floats(0, 1e9),
    "head_dispatched_at_s": st.floats(0, 100) | st.just(-np.inf),
    "last_first_token_at_s": st.floats(0, 100) | st.just(-np.inf),
    "scraped_at_s": st.floats(0, 100),
    "decode_started_s": st.floats(0, 4000),
}


def _row(draw, n, values):
    return np.array([draw(values) for _ in range(n)])


@st.composite
def choices(draw, *, odd):
    """Candidates beside a θ for each, limits, penalties and weights; with numbers of any kind."""
    n = draw(st.integers(2, 20))

    def row(values):
        return _row(draw, n, values | ODD if odd else values)

    columns = np.array([row(USUAL.get(column.name, TOKENS)) for column in COLUMNS])
    endpoints = tuple(an_endpoint(i + 1) for i in range(n))
    snapshot = FleetSnapshot(draw(st.floats(50, 200)), endpoints, columns)
    demand = DemandSnapshot(
        draw(st.floats(0, 1000)),
        row(st.floats(0, 1.5)),
        row(st.floats(0, 1)),
        row(st.floats(0, 1.2)),
        np.zeros(0),
        draw(st.booleans()),
    )
    theta = np.array([_row(draw, n, st.floats(0, 0.5)) for _ in range(N_ENGINE)]).T
    ratio = row(st.floats(0, 1))
    candidates = Candidates(
        a_request(prompt_tokens=draw(st.floats(1, 1e5))),
        snapshot,
        row(TOKENS),
        ratio,
        theta[:, 1],
        demand=draw(st.sampled_from([demand, None])),
    )
    low = np.array([-draw(st.floats(0, 1e6)) for _ in FEATURES])
    return SimpleNamespace(
        candidates=candidates,
        learner=Told(theta, draw(st.sampled_from([None, np.array([low, 1e6 + low])])), draw, n),
        settings={
            "externality_weight": draw(st.floats(0, 5)),
            "decode_weight": draw(st.floats(0, 2)),
            "eviction_weight": draw(st.floats(0, 2)),
            "eviction_depth": draw(st.floats(1, 30)),
            "memory_weight_s": draw(st.floats(0, 2)),
            "backlog_limit_s": draw(st.floats(0.01, 10) | st.none()),
        },
    )


class Told(Learner):
    """A learner of these coefficients, limits and penalties."""

    def __init__(self, theta, limits, draw, n):
        super().__init__(Given(theta), Trust(live_settings()))
        self._limits = limits
        penalties = _row(draw, n, st.floats(0, 30))
        # Equal costs have to be told apart as they were drawn.
        if draw(st.booleans()):
            theta[:] = theta[0]
            penalties[:] = penalties[0]
        self._given = draw(st.sampled_from([penalties, None]))

    def penalty_s(self, endpoints, at_s):
        return self._given

    def limits(self):
        return self._limits

    def is_in_range(self, row):
        if self._limits is None:
            return False
        return bool(((self._limits[0] <= row) & (row <= self._limits[1])).all())


class Given(EnginePredictor):
    """The engine predictor with θ as it was given."""

    def __init__(self, theta):
        super().__init__()
        self._theta = SimpleNamespace(gather=lambda _endpoints: theta)


def drawn(seed=3):
    return random.Random(seed)
