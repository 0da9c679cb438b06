"""Where a pool listens to what its engines tell of their caches."""

from __future__ import annotations

import pytest

from lodestar_extproc.config import EndpointSettings, Member, Pool, PoolSettings
from lodestar_extproc.config.kv_events import KvEvents
from lodestar_extproc.config.setting import SettingError, settings_of
from lodestar_extproc.kv_events_source import KvEventsSource


def read(written: object) -> KvEvents | None:
    return settings_of(PoolSettings)["kv_events"].parse(written)  # type: ignore[return-value]


def sources(endpoint: EndpointSettings, host: str = "10.0.0.1", **written: object):
    members = (Member(host, 8000, endpoint),)
    pool = Pool("engines", PoolSettings(kv_events=read(written)), members=members)
    return [each.kv_events for each in pool.endpoints]


def test_nobody_is_listened_to_without_the_setting():
    pool = Pool("engines", PoolSettings(), members=(Member("10.0.0.1", 8000),))
    assert [each.kv_events for each in pool.endpoints] == [None]


def test_ports_are_the_pools_or_the_endpoints_own():
    told = {"port": 5557.0, "replay_port": "5558", "topic": "kv"}
    assert sources(EndpointSettings(), **told) == [
        KvEventsSource("tcp://10.0.0.1:5557", "tcp://10.0.0.1:5558", "kv")
    ]
    own = EndpointSettings(kv_events_port=6001, kv_events_replay_port=6002)
    assert sources(own, "fd00::1", **told) == [
        KvEventsSource("tcp://[fd00::1]:6001", "tcp://[fd00::1]:6002", "kv")
    ]


def test_an_empty_mapping_is_vllms_own_port_without_replay():
    assert sources(EndpointSettings()) == [KvEventsSource("tcp://10.0.0.1:5557")]


def test_an_engine_that_caches_nothing_is_not_listened_to():
    assert sources(EndpointSettings(prefix_caching=False)) == [None]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"port": 0}, "port is no whole number from 1 to 65535"),
        ({"port": "many"}, "port is no whole number"),
        ({"replay_port": 70000}, "replay_port is no whole number"),
        ({"topic": 5}, "topic is no text"),
        ({"prot": 5557}, "prot is none of port, replay_port, topic"),
        (5557, "is not a mapping of"),
    ],
)
def test_what_it_does_not_take_is_said(written, problem):
    with pytest.raises(SettingError, match=problem):
        read(written)


def test_what_is_to_be_installed_is_said(monkeypatch):
    monkeypatch.setattr(
        "lodestar_extproc.config.extras.find_spec", lambda name: None if name == "zmq" else object()
    )
    with pytest.raises(SettingError, match=r"zmq cannot be imported: pip install .*kv-events"):
        PoolSettings(kv_events=KvEvents())
