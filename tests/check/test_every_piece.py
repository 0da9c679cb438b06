"""Delete any key of a shipped file: Envoy refuses it, the doctor speaks, or it is no loss."""

import copy
import json
import re
from itertools import chain
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from builders import DEFAULT_ENVOY_FILE
from document_places import places_in
from lodestar_extproc.check import find_envoy
from lodestar_extproc.check.envoy_binary import validate
from lodestar_extproc.check.examination import examine, hints, unseen
from lodestar_extproc.check.subject import subject_of
from lodestar_extproc.config.node import Node
from lodestar_extproc.config.resources import read_resources
from lodestar_extproc.config.schema import BOOTSTRAP

NO_LOSS = {
    r"^(admin|node)": "nothing of ours stands there",
    r"listeners\.\d+\.name|stat_prefix|route_config\.name|\.log_name": "a name for statistics",
    r"virtual_hosts\.\d+\.name|(access_log|policies|predicate|http_filters)\.\d+\.name": "as above",
    r"\.always_set_request_id_in_response$": "a client may do without the id of its request",
    r"early_header_mutation_extensions": "a hint, where a setting trusts what clients then can send",
    r"\.request_timeout$": "Envoy's default is off, too",
    r"transport_api_version$|buffer_size_bytes$": "Envoy's default is the same",
    r"custom_tags\.\d+$": "the entry tells it in a field of its own, too",
    r"retry_back_off": "25 ms instead of 10 before the next engine is tried",
    r"host_selection_retry_max_attempts$": "Lodestar's list comes first, and names no engine twice",
    r"processing_mode\.(request_header_mode|request_trailer_mode|response_trailer_mode)$": (
        "Envoy's default, or for the observer one message more that is passed over"
    ),
    r"\.0\.typed_config\.processing_mode\.response_body_mode$": "Envoy's default",
    r"http_filters\.1\.typed_config\.processing_mode\.(request_body|response_header)_mode$": (
        "Envoy's default, or one message more that is passed over"
    ),
    r"http_filters\.\d\.typed_config\.request_attributes": "one pool need not be told from others",
    r"route_cache_action$": "a choice of ours clears no route",
    r"max_message_timeout$": "then no request is held: Envoy would not wait for it",
    r"response_attributes\.1$": "the access log tells the status",
    r"clusters\.\d+\.type$": "STATIC is Envoy's default",
    r"lodestar\.\w+$|lb_endpoints\.\d+\.metadata": "settings have defaults",
    r"clusters\.0.*lb_endpoints\.\d+$": "the other engine serves",
    r"clusters\.0\.health_checks\.0\.(no_traffic_interval|http_health_check)": (
        "only the fallback heeds these checks"
    ),
    r"outlier_detection": "only the fallback heeds it",
    r"healthy_panic_threshold\.value$": "a percentage without a value is 0",
    r"\.lb_policy$": "in the shadow, any policy balances",
    r"clusters\.1\.connect_timeout$": "its health check finds a dead Lodestar sooner",
    r"clusters\.1\.circuit_breakers\.thresholds\.0\.max_connections$": "HTTP/2 needs a few",
}
"""Where nothing is said, by the end of the place, and why that is right."""


def without(document, path):
    document = copy.deepcopy(document)
    place = document
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return document


def spoken(document, path: Path) -> bool:
    root = Node(document, str(path), kind=BOOTSTRAP)
    if not root.get("static_resources"):
        return True  # it is no Envoy bootstrap any more
    subject = subject_of(read_resources(root, path))
    said = chain(examine(subject, path), hints(subject, path), unseen(subject, path))
    return next(said, None) is not None


def silent_losses(file: Path, folder: Path) -> list[str]:
    """The keys whose loss Envoy accepts, the doctor passes over, and nobody has thought of."""
    document, path = YAML(typ="safe").load(file), folder / "less.json"
    assert not spoken(document, file)
    found = []
    for place in places_in(document):
        dotted = ".".join(map(str, place))
        if any(re.search(pattern, dotted) for pattern in NO_LOSS):
            continue
        less = without(document, place)
        if spoken(less, file):
            continue
        path.write_text(json.dumps(less))
        if not validate(find_envoy(), path).problem:
            found.append(dotted)
    return found


OTHERS = ("shadow.yaml", "compose.yaml", "kubernetes/gateway.yaml", "variants/header.yaml")


@pytest.mark.long
def test_no_piece_of_the_shipped_file_is_lost_silently(tmp_path):
    assert silent_losses(DEFAULT_ENVOY_FILE, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_nor_of_the_others(name, tmp_path):
    assert silent_losses(DEFAULT_ENVOY_FILE.parent / name, tmp_path) == []
