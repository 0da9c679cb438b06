"""Which of Envoy's limits on a body holds: bodies of 3 MB against limits of 2 MiB and 32 MiB."""

import copy

import pytest
import pytest_asyncio

from builders import DEFAULT_ENVOY_FILE
from counted_stack import counted_stack
from lodestar_extproc.check.rules.body_limit import body_limit
from lodestar_extproc.check.subject import subject_of
from lodestar_extproc.config.node import Node
from lodestar_extproc.config.resources import read_resources
from lodestar_extproc.config.schema import BOOTSTRAP
from trapped_files import DEFAULT, both, host, put, route, small_listener

SMALL, LARGE = 2 * 2**20, 32 * 2**20
PROMPT = "x" * 3_000_000
BODY, RETRY = "request_body_buffer_limit", "per_request_buffer_limit_bytes"


def limits(*edits, small=True):
    return both(*([small_listener] if small else []), *edits)


CASES = {
    "listener small": (limits(), False),
    "listener large": (limits(small=False), True),
    "listener large, route small": (limits(put(route, **{BODY: SMALL}), small=False), True),
    "host large": (limits(put(host, **{BODY: LARGE})), True),
    "host large by the older": (limits(put(host, **{RETRY: LARGE})), True),
    "route small by the older": (limits(put(route, **{RETRY: SMALL})), False),
    "route small, host large": (
        limits(put(route, **{BODY: SMALL}), put(host, **{BODY: LARGE})),
        False,
    ),
    "route large, host small": (
        limits(put(route, **{BODY: LARGE}), put(host, **{BODY: SMALL})),
        True,
    ),
    "host large, route small by the older": (
        limits(put(host, **{BODY: LARGE}), put(route, **{RETRY: SMALL})),
        True,
    ),
    "route small, host large by the older": (
        limits(put(route, **{BODY: SMALL}), put(host, **{RETRY: LARGE})),
        False,
    ),
}
"""What is set, and whether the body passes."""


def edited(name):
    config = copy.deepcopy(DEFAULT)
    CASES[name][0](config)
    return config


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory):
    async with counted_stack(tmp_path_factory.mktemp("limits")) as stack:
        yield stack


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CASES)
async def test_a_large_body_passes_where_its_limit_is_large(stack, name):
    count = await stack.count(edited(name), n=1, prompt=PROMPT)
    assert count.answered == CASES[name][1]


@pytest.mark.parametrize("name", CASES)
def test_the_doctor_names_a_limit_where_it_is_small(name):
    root = Node(edited(name), "envoy.yaml", kind=BOOTSTRAP)
    faults = list(body_limit(subject_of(read_resources(root, DEFAULT_ENVOY_FILE))))

    assert bool(faults) != CASES[name][1]
