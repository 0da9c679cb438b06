"""Where an engine shows its metrics, if nobody says."""

from __future__ import annotations

import pytest

from builders import a_pool
from lodestar_extproc.config import EndpointSettings, Member


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://10.0.0.1:8000/metrics"),
        ({"engine": "sglang"}, "http://10.0.0.1:8000/metrics"),
        ({"engine": "trtllm"}, "http://10.0.0.1:8000/prometheus/metrics"),
        ({"engine": "trtllm", "metrics_path": "/m"}, "http://10.0.0.1:8000/m"),
        ({"engine": "triton"}, "http://10.0.0.1:8002/metrics"),
        ({"engine": "triton", "metrics_port": 9}, "http://10.0.0.1:9/metrics"),
    ],
)
def test_each_engine_has_its_own_place(settings, url):
    member = Member("10.0.0.1", 8000, EndpointSettings(**settings))

    assert a_pool(members=(member,)).endpoints[0].metrics_url == url
