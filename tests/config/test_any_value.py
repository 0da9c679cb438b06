"""Whatever stands where: it is read, or refused with the place."""

import copy
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from builders import DEFAULT_ENVOY_FILE
from envoy_features import FEATURES, Draft
from lodestar_extproc.config import ConfigError
from lodestar_extproc.config.envoy import config_of
from lodestar_extproc.config.node import Node
from lodestar_extproc.config.resources import read_resources
from lodestar_extproc.config.schema import BOOTSTRAP

JUNK = (
    *(None, "", "x", 0, -1, 1e300, "1e400", 10**400, float("nan"), True, [], {}, [None], ["x"]),
    *({"x": None}, [[1]], {"@type": 5}, {"@type": "a/b.C"}, {"value": 1}, {"seconds": "x"}),
    {"@type": "a/xds.type.v3.TypedStruct", "type_url": 7, "value": [1]},
)


def with_every_feature():
    draft = Draft(YAML(typ="safe").load(DEFAULT_ENVOY_FILE), random.Random(1))
    for feature in FEATURES:
        if not feature.__name__.endswith("_in_a_file"):
            feature(draft)
    return draft.tree


def places_in(value, path=()):
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    for key, child in inside:
        yield (*path, key)
        yield from places_in(child, (*path, key))


DOCUMENT = with_every_feature()
PLACES = tuple(places_in(DOCUMENT))


def read(document):
    resources = read_resources(Node(document, "envoy.yaml", kind=BOOTSTRAP), DEFAULT_ENVOY_FILE)
    return config_of(resources, DEFAULT_ENVOY_FILE)


def test_a_file_with_every_feature_is_read():
    assert [pool.name for pool in read(copy.deepcopy(DOCUMENT)).pools] == ["engines"]


@settings(max_examples=300)
@given(place=st.sampled_from(PLACES), junk=st.sampled_from(JUNK))
def test_any_value_anywhere_is_read_or_refused_with_its_place(place, junk):
    document = copy.deepcopy(DOCUMENT)
    *above, last = place
    parent = document
    for key in above:
        parent = parent[key]
    parent[last] = junk

    said = "read"
    try:
        read(document)
    except ConfigError as error:
        said = error.key
    assert said
