import pickle
import random

import numpy as np
import orjson
import pytest

from lodestar_extproc.learning.forest import Forest
from lodestar_extproc.learning.forest_training import N_TREES, RESIDUAL, WIDTH, compiled, grow


def some_samples(n, seed=0):
    """Rows of tokens and counts, and a residual that steps with two of them."""
    rng = np.random.default_rng(seed)
    samples = rng.uniform(0, 1, (n, WIDTH + 1)) * np.logspace(0, 4, WIDTH + 1)
    many, long = samples[:, 3] > np.median(samples[:, 3]), samples[:, 9] > np.median(samples[:, 9])
    samples[:, RESIDUAL] = 0.5 * many - 0.4 * long + rng.normal(0, 0.05, n)
    return samples


def test_arrays_answer_as_rivers_trees_do():
    samples = some_samples(1500)
    grown = grow(None, samples, seed=1)
    trees, unseen = pickle.loads(grown.ensemble), some_samples(300, seed=1)[:, :WIDTH]
    by_river = [trees.predict_one(dict(enumerate(row))) for row in np.log1p(unseen).tolist()]

    assert grown.forest.values(unseen) == pytest.approx(by_river, abs=1e-12)
    assert np.std(by_river) > 0.2
    assert len(grown.forest.roots) == N_TREES


def test_a_second_batch_goes_on_where_the_first_ended():
    samples = some_samples(1500)
    first = grow(None, samples[:700], seed=1)
    both = grow(first.ensemble, samples[700:], seed=1)
    at_once = grow(None, samples, seed=1)

    assert both.forest.state() == at_once.forest.state()
    assert both.forest.state() != first.forest.state()


def test_trees_that_saw_next_to_nothing_say_next_to_nothing():
    forest = grow(None, some_samples(1), seed=0).forest

    assert forest.depth == 0
    assert np.ptp(forest.values(some_samples(9)[:, :WIDTH])) == 0


def test_ensembles_without_a_tree_yet_answer_zero():
    class Bare:
        _root = None

    assert compiled([Bare(), Bare()]).values(np.ones((3, WIDTH))).tolist() == [0.0] * 3


def test_rows_of_any_number_are_descended_alike():
    forest = grow(None, some_samples(900), seed=2).forest
    rows = some_samples(64)[:, :WIDTH]

    one_by_one = [float(forest.values(row[None])[0]) for row in rows]
    assert forest.values(rows) == pytest.approx(one_by_one, abs=1e-12)
    assert forest.values(rows[:0]).shape == (0,)


def test_a_checkpoint_keeps_every_answer():
    forest, rows = grow(None, some_samples(900), seed=2).forest, some_samples(50)[:, :WIDTH]
    again = Forest.from_state(orjson.loads(orjson.dumps(forest.state())), WIDTH)

    assert (again.values(rows) == forest.values(rows)).all()


@pytest.mark.parametrize("change", [{"roots": [10**6]}, {"roots": [-1]}, {"feature": None}])
def test_a_state_that_leads_nowhere_is_refused(change):
    state = grow(None, some_samples(900), seed=2).forest.state()
    wide = {"feature": [WIDTH] * len(state["value"])}

    with pytest.raises((TypeError, ValueError)):
        Forest.from_state(state | (wide if "feature" in change else change), WIDTH)


def test_broken_features_do_not_stop_a_training():
    samples = some_samples(400)
    samples[::7, 2] = -1e9
    samples[::5, 4] = 1e9

    assert np.isfinite(grow(None, samples, random.Random(0).getrandbits(31)).forest.value).all()
