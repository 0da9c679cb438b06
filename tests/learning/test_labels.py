from dataclasses import replace

import numpy as np
import pytest

from builders import live_settings
from learning_worlds import LinearWorld
from lodestar_extproc.features import Feature
from lodestar_extproc.learning.auto_predictor import AutoPredictor
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.labels import MAX_LABEL_S, checked
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.trust import Trust


def a_sample(**changes):
    return replace(next(LinearWorld().samples(1)), **changes)


def test_a_measured_time_is_a_label_as_it_is():
    sample = a_sample(ttft_s=0.4)

    assert checked(sample) is sample


@pytest.mark.parametrize("ttft_s", [np.nan, np.inf, -np.inf, -1.0, 0.0])
def test_what_is_no_time_is_no_label(ttft_s):
    assert checked(a_sample(ttft_s=ttft_s)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_row_with_a_broken_feature_has_no_label(value):
    row = a_sample().features.copy()
    row[Feature.KV_USAGE_RATIO] = value

    assert checked(a_sample(features=row)) is None


def test_a_label_is_bounded_and_nothing_else_of_its_sample_changes():
    sample = a_sample(ttft_s=1e6)

    assert replace(checked(sample), ttft_s=1e6) == sample
    assert checked(sample).ttft_s == MAX_LABEL_S


def test_a_sample_is_checked_before_anything_learns_of_it():
    world = LinearWorld()
    learner = Learner(AutoPredictor([EnginePredictor]), Trust(live_settings()))
    world.teach(learner, 20)
    before = learner.state()
    learner.learn(a_sample(ttft_s=-1.0))

    assert learner.state() == before
    assert learner.status().rejected == 1
