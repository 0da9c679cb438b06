"""The fuzzing targets on their seeds and on seeded mutations: a short run of `make fuzz`."""

from __future__ import annotations

import random
import time
from importlib.util import find_spec

import pytest
from fuzz_targets import TARGETS
from guidance import GUIDED_BY
from mutations import mutated, with_another_value

N_MUTATIONS = {"envoy_config": 20, "checkpoint": 60, "wire": 100, "frames": 100, "http2": 100}
LONGEST_INPUT_S = 5.0  # of a busy machine; `make fuzz` allows one second


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_what_must_hold(name):
    target, rng = TARGETS[name], random.Random(1)
    seeds = list(target.seeds())
    inputs = [*seeds, *(mutated(seeds, rng) for _ in range(N_MUTATIONS.get(name, 300)))]
    for data in inputs:
        began_s = time.process_time()
        target.check(data)
        assert time.process_time() - began_s < LONGEST_INPUT_S


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_the_same_in_every_run(name):
    seeds = list(TARGETS[name].seeds())
    assert seeds == list(TARGETS[name].seeds())
    assert seeds


def test_what_guides_the_fuzzing_is_known_of_every_target():
    assert GUIDED_BY.keys() == TARGETS.keys()
    assert all(find_spec(name) for names in GUIDED_BY.values() for name in names)


@pytest.mark.parametrize("depth", [250, 900, 1500])
def test_json_that_is_too_deep_to_be_changed_is_left_to_other_mutations(depth):
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    changes = {with_another_value(deep, random.Random(seed)) for seed in range(20)}
    assert None in changes or depth < 900
