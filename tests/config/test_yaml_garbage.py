"""A file that was read leaves nothing for the garbage collector to find."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest
from ruamel.yaml.error import YAMLError

from lodestar_extproc.config import EndpointSettings
from lodestar_extproc.config.yaml_tree import read_yaml
from lodestar_extproc.fleet.discovery.kubernetes.accelerator import own_settings


def of_labels(text: str) -> None:
    own_settings("here", {}, {"lodestar/kv-capacity-tokens": text}, EndpointSettings())


@pytest.fixture
def uncollected():
    """Counts what would have to be found, of all that was made since."""
    gc.collect()
    gc.disable()
    yield gc.collect
    gc.enable()


@pytest.mark.parametrize("read", [read_yaml, of_labels])
@pytest.mark.parametrize("text", ["7", "{a: [1, {b: &x c}], d: *x}", "- a\n--- \n- b", "a: ["])
def test_nothing_is_left_of_a_reader(uncollected, read, text):
    for _ in range(2):  # what is made once, as imports, is no garbage
        with suppress(YAMLError):
            read(text)
        n_left = uncollected()
    assert n_left == 0
