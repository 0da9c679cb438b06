"""The compiled kernel says what its plain twins say, to 1e-12, of whatever a fleet can be in."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_request, an_endpoint, live_settings
from kernel_worlds import choices, drawn, needs_the_kernel
from lodestar_extproc.endpoint import COLUMNS
from lodestar_extproc.features import FEATURES, N_ENGINE
from lodestar_extproc.fleet.demand import Demand
from lodestar_extproc.kernel import structures
from lodestar_extproc.kernel.compiled import KERNEL, SOURCE
from lodestar_extproc.learning.bayesian_linear import BayesianLinearPredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.nonnegative_rls import NonNegativeRLS
from lodestar_extproc.learning.trust import Trust
from lodestar_extproc.policies.compiled_weighing import CompiledWeighing, _constants
from lodestar_extproc.policies.weighing import PlainWeighing
from lodestar_extproc.request import hash_blocks
from lodestar_extproc.routing.assembly import COSTS, new_cost

pytestmark = needs_the_kernel
ALIKE = {"rtol": 1e-12, "atol": 1e-12, "equal_nan": True}


class Unasked:
    """Stands for the plain twin where the kernel has to do."""

    def weigh(self, candidates, rng):
        raise AssertionError("the kernel left it to its twin")


def a_cost(name, world):
    live = live_settings(cost=name, **world.settings)
    return new_cost(live, world.learner, name)


def both(world, name):
    """What each says, and what each left of chance."""
    cost, rngs = a_cost(name, world), (drawn(), drawn())
    plain = PlainWeighing(world.learner, cost)
    compiled = CompiledWeighing(world.learner, cost, Unasked(), KERNEL)
    with np.errstate(all="ignore"):
        said = compiled.weigh(world.candidates, rngs[0]), plain.weigh(world.candidates, rngs[1])
    assert rngs[0].random() == rngs[1].random()
    return said


def assert_alike(compiled, plain):
    np.testing.assert_allclose(compiled.estimate, plain.estimate, **ALIKE)
    np.testing.assert_allclose(compiled.cost_s, plain.cost_s, **ALIKE)
    assert compiled.order == plain.order
    assert compiled.is_in_range == plain.is_in_range
    if plain.row is not None:
        np.testing.assert_allclose(compiled.row, plain.row, **ALIKE)


@pytest.mark.parametrize("cost", ["externality", "ttft", "goodput"])
@given(choices(odd=False))
@settings(deadline=None, max_examples=60)
def test_both_weigh_alike(cost, world):
    assert_alike(*both(world, cost))


@given(choices(odd=True), st.sampled_from(["externality", "ttft"]))
@settings(deadline=None, max_examples=150)
def test_both_weigh_alike_what_is_no_number(world, cost):
    assert_alike(*both(world, cost))


@given(choices(odd=False))
@settings(deadline=None, max_examples=30)
def test_a_price_of_its_own_for_slower_tokens_is_left_out_by_both(world):
    world.settings["decode_weight"] = 0.0
    assert_alike(*both(world, "externality"))


@given(choices(odd=False), st.sampled_from(COSTS))
@settings(deadline=None, max_examples=40)
def test_what_the_kernel_does_not_know_is_left_to_its_twin(world, name):
    asked = []

    class Asked:
        def weigh(self, candidates, rng):
            asked.append(candidates)

    bounded = replace(world.candidates, request=a_request(ttft_slo_s=1.0))
    learner = Learner(BayesianLinearPredictor(), Trust(live_settings()))
    for candidates, of in ((bounded, world.learner), (world.candidates, learner)):
        cost = a_cost(name, world)
        known = of is world.learner and name in ("externality", "ttft")
        asked.clear()
        CompiledWeighing(of, cost, Asked(), KERNEL).weigh(candidates, drawn())
        assert asked == ([] if known else [candidates])


@given(choices(odd=True), st.data())
@settings(deadline=None, max_examples=60)
def test_both_have_the_same_row_of_any_candidate(world, data):
    index = data.draw(st.integers(0, len(world.candidates) - 1))
    cost = a_cost("ttft", world)
    plain = PlainWeighing(world.learner, cost)
    row = CompiledWeighing(world.learner, cost, Unasked(), KERNEL).row(world.candidates, index)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(row, plain.row(world.candidates, index), **ALIKE)


def test_features_that_somebody_changed_are_those_that_are_weighed():
    world = _one(choices(odd=False))
    world.candidates.features.rows[:] *= 2.0
    cost = a_cost("ttft", world)
    plain = PlainWeighing(world.learner, cost)
    compiled = CompiledWeighing(world.learner, cost, plain, KERNEL)

    assert_alike(compiled.weigh(world.candidates, drawn()), plain.weigh(world.candidates, drawn()))


@pytest.mark.parametrize("n", [2, 8, 9, 16, 17, 100, 512])
def test_many_candidates_are_sorted_as_numpy_sorts_them(n):
    rng = np.random.default_rng(n)
    for kinds in (1, 3, 2 * n):
        arrays = structures.WeighingArrays(n, len(COLUMNS), _constants())
        arrays.values[:] = 1.0
        arrays.ties[:] = rng.integers(0, 5, n)
        arrays.given[-1] = rng.integers(0, kinds, n)
        KERNEL.weigh(arrays.call)

        assert arrays.order.tolist() == np.lexsort((arrays.ties, arrays.told[-1])).tolist()


@given(choices(odd=True), st.floats(0, 100))
@settings(deadline=None, max_examples=100)
def test_the_mean_use_of_memory_is_the_same(world, later_s):
    snapshot = world.candidates.snapshot
    compiled, plain = Demand(snapshot.endpoints, KERNEL), Demand(snapshot.endpoints, None)
    request, ratio = a_request(), np.zeros(len(snapshot))
    with np.errstate(all="ignore"):
        for at_s in (snapshot.at_s, snapshot.at_s + later_s):
            snapshot.let_go()
            snapshot.at_s = at_s
            seen = [each.snapshot(request, snapshot, ratio, ratio) for each in (compiled, plain)]
            np.testing.assert_allclose(*(s.memory_ratio for s in seen), **ALIKE)
            for each, met in zip((compiled, plain), seen, strict=True):
                address = snapshot.endpoints[0].address
                each.dispatch(request, snapshot, met, address, uncached_tokens=1.0, service_s=0.1)


@pytest.mark.parametrize("shrunk", [False, True])
@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(0, 50), min_size=4, max_size=4), st.floats(1e-3, 60), st.floats(0, 2)
        ),
        max_size=40,
    )
)
@settings(deadline=None, max_examples=40)
def test_a_regression_learns_the_same(shrunk, samples):
    compiled, plain = a_regressor(KERNEL, shrunk=shrunk), a_regressor(None, shrunk=shrunk)
    for x, y, weight in samples:
        for each in (compiled, plain):
            for one in (each.shrink_to, each) if shrunk else (each,):
                one.learn_one(dict(zip("abcd", x, strict=True)), y, weight)
        np.testing.assert_allclose(compiled.theta, plain.theta, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(compiled.gram, plain.gram, rtol=1e-12)
        assert compiled.n_samples == plain.n_samples


def a_regressor(kernel, *, shrunk):
    class Either(NonNegativeRLS):
        pass

    Either.kernel = kernel
    shared = Either(forgetting=0.9995, prior=dict.fromkeys("abcd", 0.5), sweeps=2)
    return Either(shrink_to=shared) if shrunk else shared


def names_of(kind):
    """The members of an enum of `kernel.c`, in lower case, those that only count left out."""
    (body,) = re.findall(rf"enum {kind} \{{(.*?)\}}", SOURCE.read_text(), re.DOTALL)
    named = [name.split("=")[0].strip().lower().removeprefix("f_") for name in body.split(",")]
    return [name for name in named if not name.startswith("n_")]


def test_the_c_file_has_the_columns_features_and_rows_of_python():
    assert names_of("column") == [column.name for column in COLUMNS]
    assert names_of("given") == list(structures.GIVEN)
    assert names_of("told") == list(structures.TOLD)
    assert (N_ENGINE, len(FEATURES)) == (structures.N_ENGINE, structures.N_FEATURES)
    assert names_of("feature") == list(FEATURES)


def _one(strategy):
    found = []

    @given(strategy)
    @settings(max_examples=1, deadline=None, database=None)
    def take(value):
        found.append(value)

    take()
    return found[-1]


def test_one_endpoint_more_or_less_is_weighed_in_arrays_of_its_size():
    first = _one(choices(odd=False))
    weighing = CompiledWeighing(first.learner, a_cost("ttft", first), Unasked(), KERNEL)
    for n in range(2, 40):
        candidates = replace(
            first.candidates,
            snapshot=replace(
                first.candidates.snapshot,
                endpoints=tuple(an_endpoint(i + 1) for i in range(n)),
                values=np.ones((len(COLUMNS), n)),
            ),
            matched_tokens=np.zeros(n),
            prefill_s_per_ktoken=np.ones(n),
            demand=None,
        )
        first.learner.predictor._theta.gather = lambda _endpoints, n=n: np.ones((n, N_ENGINE))
        first.learner._given = None

        assert sorted(weighing.weigh(candidates, drawn()).order) == list(range(n))


HELD_AS = [bytes, bytearray, lambda prompt: memoryview(bytearray(b"a" + prompt))[1:]]


@given(st.binary(max_size=600), st.integers(0, 2**64 - 1), st.sampled_from(HELD_AS))
def test_a_prompt_has_the_same_hashes(prompt, seed, held_as):
    said = hash_blocks(held_as(prompt), seed)

    assert said == hash_blocks(prompt, seed, kernel=None)
    assert len(said) == len(prompt) // 64
