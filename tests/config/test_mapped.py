import random
from collections import Counter

import pytest

from lodestar_extproc.config.errors import ConfigError
from lodestar_extproc.config.mapped import ModelRewrites, Priorities
from lodestar_extproc.config.node import parse_node
from lodestar_extproc.config.reader import read_settings
from lodestar_extproc.config.settings import PoolSettings


def read(text: str) -> PoolSettings:
    return read_settings(parse_node(text, "f.yaml"), PoolSettings)


def test_priorities_are_whole_numbers_by_objective():
    given = read("objective_priorities: {batch: -1, chat: 2.0}").objective_priorities
    assert given == Priorities((("batch", -1), ("chat", 2)))
    assert [given.of(name) for name in ("batch", "chat", "other")] == [-1, 2, 0]


def test_traffic_is_split_by_weight_and_repeatably():
    split = read("model_rewrites: {chat: {v1: 90, v2: 10, v3: 0}}").model_rewrites
    first, second = (
        Counter(split.target("chat", rng) for _ in range(5000))
        for rng in (random.Random(1), random.Random(1))
    )
    assert first == second
    assert first["v2"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert set(first) == {"v1", "v2"}


def test_a_model_without_a_choice_draws_nothing():
    rng = random.Random(1)
    state = rng.getstate()
    rewrites = ModelRewrites.read({"old": "new"})
    assert [rewrites.target(name, rng) for name in ("old", "other")] == ["new", "other"]
    assert rng.getstate() == state


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("objective_priorities: {batch: 0.5}", "priority of batch is no whole number"),
        ("objective_priorities: {batch: true}", "priority of batch is no whole number"),
        ("objective_priorities: 3", "3 is not a mapping of objectives"),
        ("model_rewrites: [a]", "is not a mapping of models"),
        ("model_rewrites: {a: {}}", "what a is rewritten to"),
        ("model_rewrites: {a: 3}", "what a is rewritten to"),
        ("model_rewrites: {a: {b: -1}}", "weight of b"),
        ("model_rewrites: {a: {b: .inf}}", "weight of b"),
        ("model_rewrites: {a: {b: 0}}", "all weights of a are 0"),
    ],
)
def test_what_is_written_wrongly_is_refused_with_its_line(text, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        read(text)
    assert "f.yaml:1" in str(caught.value) or "f.yaml" in str(caught.value)
