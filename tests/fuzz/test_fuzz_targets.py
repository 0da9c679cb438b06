"""The fuzzing targets on their seeds and on seeded mutations: a short run of `make fuzz`."""

from __future__ import annotations

import random
import time

import pytest
from fuzz_targets import TARGETS
from mutations import mutated

N_MUTATIONS = {"envoy_config": 20, "checkpoint": 60, "wire": 100, "frames": 100}
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
