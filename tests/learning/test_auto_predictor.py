from dataclasses import replace

import numpy as np
import orjson
import pytest

from builders import live_settings
from learning_worlds import LinearWorld
from lodestar_extproc.features import N_ENGINE, Feature
from lodestar_extproc.learning.auto_predictor import MIN_SAMPLES, AutoPredictor
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.trust import Trust

PROMPT = Feature.PROMPT_TOKENS


class MisleadingWorld(LinearWorld):
    """While it misleads, TTFT follows the prompt alone, and engine features are of another hour."""

    def __init__(self):
        super().__init__(("slow",) * 3)
        self.misleads = True

    def observe(self, candidates, index, predicted_s=None):
        sample = super().observe(candidates, index, predicted_s)
        if not self.misleads:
            return sample
        row = sample.features.copy()
        row[:N_ENGINE] = self.candidates().features.engine[index]
        noise = self.rng.lognormvariate(0.0, 0.1)
        return replace(sample, features=row, ttft_s=(0.1 + 2e-4 * row[PROMPT]) * noise)


class ByPrompt(EnginePredictor):
    """Sees the length of the prompt and nothing else."""

    name = "by_prompt"

    def ttft_s(self, sample):
        return super().ttft_s(self.seen(sample))

    def learn(self, sample):
        super().learn(self.seen(sample))

    def seen(self, sample):
        row = np.zeros_like(sample.features)
        row[0], row[1] = 1.0, sample.features[PROMPT] / 1e3
        return replace(sample, features=row)


class Biased(EnginePredictor):
    """Knows every answer, but for a factor."""

    def __init__(self, name, factor):
        super().__init__()
        self.name, self.factor, self.closed = name, factor, False

    def ttft_s(self, sample):
        return self.factor * sample.ttft_s

    def close(self):
        self.closed = True


def an_auto():
    return AutoPredictor([EnginePredictor, ByPrompt])


def between(**factors):
    """An auto predictor between predictors of known error."""
    experts = {name: Biased(name, factor) for name, factor in factors.items()}
    return AutoPredictor([lambda expert=expert: expert for expert in experts.values()]), experts


def teach(predictor, n, world=None):
    """*n* samples; the predictors that predicted, in order."""
    seen = [predictor.predicting]
    for sample in (world or LinearWorld()).samples(n):
        predictor.learn(sample)
        if predictor.predicting != seen[-1]:
            seen.append(predictor.predicting)
    return seen


def test_moves_to_the_better_predictor_and_back():
    predictor, world = an_auto(), MisleadingWorld()
    world.misleads = False
    assert teach(predictor, 600, world) == ["engine"]

    world.misleads = True
    assert teach(predictor, 800, world)[-1] == "by_prompt"

    world.misleads = False
    assert teach(predictor, 1500, world)[-1] == "engine"


def test_a_predictor_that_is_hardly_better_does_not_take_over():
    predictor, _ = between(one=1.2, two=1.19)

    assert teach(predictor, 1000) == ["one"]


def test_a_better_predictor_waits_until_enough_is_known_of_it():
    predictor, _ = between(one=1.5, two=1.0)

    assert teach(predictor, MIN_SAMPLES) == ["one"]
    assert teach(predictor, 1) == ["one", "two"]


def test_the_choice_stays_for_a_while_however_wrong():
    predictor, experts = between(one=1.5, two=1.0)
    teach(predictor, MIN_SAMPLES + 1)
    experts["one"].factor, experts["two"].factor = 1.0, 5.0

    assert teach(predictor, MIN_SAMPLES - 1) == ["two"]
    assert teach(predictor, 100) == ["two", "one"]


def test_too_low_counts_as_much_as_too_high():
    predictor, _ = between(high=2.0, low=0.5)
    teach(predictor, 500)

    assert predictor.errors["high"] == pytest.approx(1.0)
    assert predictor.errors["low"] == pytest.approx(1.0)
    assert predictor.predicting == "high"


def test_one_absurd_label_does_not_decide():
    predictor, world = an_auto(), LinearWorld()
    teach(predictor, 400, world)
    predictor.learn(replace(next(world.samples(1)), ttft_s=1e-9))

    assert teach(predictor, 200, world) == ["engine"]


def test_who_predicts_is_to_be_seen():
    learner = Learner(an_auto(), Trust(live_settings()))
    world = MisleadingWorld()
    assert (learner.status().predictor, learner.status().predicting) == ("auto", "engine")

    world.teach(learner, 800)
    assert learner.status().predicting == "by_prompt"


def test_a_checkpoint_keeps_the_choice_and_the_errors():
    predictor, again = an_auto(), an_auto()
    teach(predictor, 800, MisleadingWorld())
    again.restore(orjson.loads(orjson.dumps(predictor.state())))

    assert again.predicting == predictor.predicting == "by_prompt"
    assert again.errors == predictor.errors


def test_features_keep_their_meaning_whoever_predicts():
    predictor, world = an_auto(), MisleadingWorld()
    teach(predictor, 800, world)
    engine = predictor._experts[0].predictor

    assert predictor.predicting == "by_prompt"
    assert (
        predictor.prefill_s_per_ktoken(world.endpoints)
        == engine.prefill_s_per_ktoken(world.endpoints)
    ).all()


def test_closing_closes_all():
    predictor, experts = between(one=1.0, two=1.0)
    predictor.close()

    assert all(expert.closed for expert in experts.values())
