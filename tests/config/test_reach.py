"""How a member's pages are asked for: by its cluster, or by settings."""

import pytest

from lodestar_extproc.config import EndpointSettings, Member, Pool, PoolSettings
from lodestar_extproc.config.pool import each_once
from lodestar_extproc.config.upstream import HttpHealthCheck, Transport
from lodestar_extproc.encryption import Pem, UpstreamTls
from lodestar_extproc.endpoint import Endpoint, HealthQuestion, Level

CA = Pem(text="theirs")
TLS = UpstreamTls(trusted_ca=CA, server_name="engines")


def endpoint(member=None, pool=None, **settings):
    given = {"transport": Transport(TLS)} | (member or {})
    asked = Pool("engines", PoolSettings(**settings), **(pool or {}))
    return asked.endpoint(Member("10.0.0.1", 8000, **given), "10.0.0.1")


def urls(found):
    return found.metrics_url, found.health_url


def test_the_cluster_says_how():
    found = endpoint()

    assert urls(found) == ("https://10.0.0.1:8000/metrics", "https://10.0.0.1:8000/health")
    assert found.tls == TLS


def test_where_the_cluster_encrypts_nothing_nor_do_we():
    found = endpoint({"transport": Transport()})

    assert urls(found) == ("http://10.0.0.1:8000/metrics", "http://10.0.0.1:8000/health")
    assert found.tls is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"engine_tls": "off"}, None),
        ({"engine_tls": "unverified"}, (False, CA, "engines", ())),
        ({"engine_tls": "verified"}, (True, CA, "engines", ("engines",))),
        ({"engine_ca_path": "/ours"}, (True, "/ours", "engines", ())),
        ({"engine_server_name": "other"}, (True, CA, "other", ())),
    ],
)
def test_settings_say_otherwise(settings, expected):
    tls = endpoint(**settings).tls
    if expected is None:
        assert tls is None
        return
    verifies, ca, name, names = expected
    trusted = CA if tls.trusted_ca == CA else str(tls.trusted_ca.path)

    assert (tls.verifies, trusted, tls.server_name, tls.subject_names) == (
        verifies,
        ca,
        name,
        names,
    )


def test_without_a_cluster_settings_alone_say_how():
    plain = {"transport": Transport()}
    found = endpoint(plain, engine_tls="verified", engine_server_name="engines")

    assert found.metrics_url.startswith("https://")
    assert found.tls == UpstreamTls(
        system_roots=True, server_name="engines", subject_names=("engines",)
    )
    assert endpoint(plain, engine_tls="unverified").tls.verifies is False


def test_the_name_of_an_endpoint_is_its_sni_where_the_cluster_says_so():
    tls = UpstreamTls(server_name="fallback", host_is_server_name=True)
    named = {"transport": Transport(tls), "hostname": "a.engines"}

    assert endpoint(named).tls.server_name == "a.engines"
    assert endpoint(named | {"hostname": ""}).tls.server_name == "fallback"
    assert endpoint(named, engine_server_name="ours").tls.server_name == "ours"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (EndpointSettings(engine="triton"), "http://10.0.0.1:8002/metrics"),
        (EndpointSettings(metrics_port=9400), "http://10.0.0.1:9400/metrics"),
        (
            EndpointSettings(metrics_port=9400, metrics_scheme="https"),
            "https://10.0.0.1:9400/metrics",
        ),
        (EndpointSettings(metrics_scheme="http"), "http://10.0.0.1:8000/metrics"),
    ],
)
def test_metrics_on_another_port_are_plain_unless_it_is_said(own, expected):
    found = endpoint({"settings": own})

    assert found.metrics_url == expected
    assert found.health_url.startswith("https://")


CHECK = HttpHealthCheck("/ping", host="", statuses=((200, 201), (204, 205)), port=9000)


@pytest.mark.parametrize(
    ("member", "settings", "url", "host"),
    [
        ({}, {}, "https://10.0.0.1:9000/ping", "engines"),
        ({"health_port": 9001}, {}, "https://10.0.0.1:9001/ping", "engines"),
        ({"hostname": "a"}, {}, "https://10.0.0.1:9000/ping", "a"),
        ({"hostname": "a", "health_host": "b"}, {}, "https://10.0.0.1:9000/ping", "b"),
        ({}, {"health_path": "/health"}, "https://10.0.0.1:9000/health", ""),
    ],
)
def test_health_is_asked_as_the_clusters_check_asks(member, settings, url, host):
    found = endpoint(member, {"health": CHECK}, **settings)

    assert found.health_url == url
    assert found.health.host == host
    assert found.health.is_healthy(204)
    assert not found.health.is_healthy(302)
    assert found.health.is_healthy(202) == bool(settings)


def test_what_envoy_does_not_check_we_do_not():
    assert endpoint({"checked": False}).health_url is None


def test_without_a_check_any_2xx_is_healthy():
    assert endpoint().health == HealthQuestion()
    assert endpoint().health.is_healthy(299)


def test_levels_are_the_clusters():
    found = endpoint(
        {"priority": 2, "degraded": True}, {"overprovisioning": 2.0, "panic_ratio": 0.1}
    )

    assert found.level == Level(2, 2.0, 0.1, True)


def test_an_address_on_two_levels_is_on_the_preferred_one():
    twice = [Endpoint("a:1", level=Level(p)) for p in (1, 0, 1)]

    assert each_once(twice) == (twice[1],)
