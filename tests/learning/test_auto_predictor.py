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
    """An auto model between models of known error."""
    rivals = {name: Biased(name, factor) for name, factor in factors.items()}
    return AutoPredictor([lambda rival=rival: rival for rival in rivals.values()]), rivals


def teach(model, n, world=None):
    """*n* samples; the models that predicted, in order."""
    seen = [model.predicting]
    for sample in (world or LinearWorld()).samples(n):
        model.learn(sample)
        if model.predicting != seen[-1]:
            seen.append(model.predicting)
    return seen


def test_moves_to_the_better_model_and_back():
    model, world = an_auto(), MisleadingWorld()
    world.misleads = False
    assert teach(model, 600, world) == ["engine"]

    world.misleads = True
    assert teach(model, 800, world)[-1] == "by_prompt"

    world.misleads = False
    assert teach(model, 1500, world)[-1] == "engine"


def test_a_model_that_is_hardly_better_does_not_take_over():
    model, _ = between(one=1.2, two=1.19)

    assert teach(model, 1000) == ["one"]


def test_a_better_model_waits_until_enough_is_known_of_it():
    model, _ = between(one=1.5, two=1.0)

    assert teach(model, MIN_SAMPLES) == ["one"]
    assert teach(model, 1) == ["one", "two"]


def test_the_choice_stays_for_a_while_however_wrong():
    model, rivals = between(one=1.5, two=1.0)
    teach(model, MIN_SAMPLES + 1)
    rivals["one"].factor, rivals["two"].factor = 1.0, 5.0

    assert teach(model, MIN_SAMPLES - 1) == ["two"]
    assert teach(model, 100) == ["two", "one"]


def test_too_low_counts_as_much_as_too_high():
    model, _ = between(high=2.0, low=0.5)
    teach(model, 500)

    assert model.errors["high"] == pytest.approx(1.0)
    assert model.errors["low"] == pytest.approx(1.0)
    assert model.predicting == "high"


def test_one_absurd_label_does_not_decide():
    model, world = an_auto(), LinearWorld()
    teach(model, 400, world)
    model.learn(replace(next(world.samples(1)), ttft_s=1e-9))

    assert teach(model, 200, world) == ["engine"]


def test_who_predicts_is_to_be_seen():
    learner = Learner(an_auto(), Trust(live_settings()))
    world = MisleadingWorld()
    assert (learner.status().predictor, learner.status().predicting) == ("auto", "engine")

    world.teach(learner, 800)
    assert learner.status().predicting == "by_prompt"


def test_a_checkpoint_keeps_the_choice_and_the_errors():
    model, again = an_auto(), an_auto()
    teach(model, 800, MisleadingWorld())
    again.restore(orjson.loads(orjson.dumps(model.state())))

    assert again.predicting == model.predicting == "by_prompt"
    assert again.errors == model.errors


def test_features_keep_their_meaning_whoever_predicts():
    model, world = an_auto(), MisleadingWorld()
    teach(model, 800, world)
    engine = model._rivals[0].model

    assert model.predicting == "by_prompt"
    assert (
        model.prefill_s_per_ktoken(world.endpoints) == engine.prefill_s_per_ktoken(world.endpoints)
    ).all()


def test_closing_closes_all():
    model, rivals = between(one=1.0, two=1.0)
    model.close()

    assert all(rival.closed for rival in rivals.values())
