"""Which configuration the options of `serve` come to."""

from __future__ import annotations

import pytest

from builders import an_envoy_file
from envoy_files import (
    bootstrap,
    cluster,
    engines,
    ext_proc,
    grpc_cluster,
    listener,
    manager,
    written,
)
from lodestar_extproc.commands.access_options import admin_access_of, tls_of
from lodestar_extproc.commands.configuration import config_of, warn_of_unread, watched_by
from lodestar_extproc.config import ConfigError, EnvoyConfig, InferencePoolRef, ServiceRef
from lodestar_extproc.server_tls import ServerTls


def test_endpoints_of_an_envoy_configuration_may_come_from_a_service(tmp_path):
    service = watched_by(None, "vllm:http", "models")
    config = config_of(an_envoy_file(tmp_path), service, None, access_log=False)

    assert isinstance(config, EnvoyConfig)
    (pool,) = config.pools
    assert pool.kubernetes.watched == ServiceRef("vllm", "models", "http")
    assert pool.endpoints == ()
    assert pool.settings.policy == "learned"


def with_endpoints_of_a_control_plane(folder):
    block = {"filter_metadata": {"lodestar": {"policy": "random"}}}
    eds = {"eds_config": {"ads": {}, "resource_api_version": "V3"}}
    pool = cluster("engines", type="EDS", metadata=block, eds_cluster_config=eds)
    asks = listener(manager(ext_proc("decide", "lodestar", chooses=True)))
    return written(folder, bootstrap([asks], [pool, grpc_cluster("lodestar")]))


def test_endpoints_that_a_control_plane_tells_envoy_alone_have_to_be_named(tmp_path):
    path = with_endpoints_of_a_control_plane(tmp_path)

    with pytest.raises(ValueError, match="endpoints of pool engines come by xDS") as refused:
        config_of(path, None, None, access_log=False)
    assert "--service" in str(refused.value)


def test_endpoints_of_a_control_plane_are_taken_from_the_service_that_is_named(tmp_path):
    path = with_endpoints_of_a_control_plane(tmp_path)
    config = config_of(path, ServiceRef("vllm", "models"), None, access_log=False)

    assert config.pools[0].kubernetes.watched == ServiceRef("vllm", "models")
    assert not config.pools[0].endpoints_by_xds
    assert not config.not_looked_at


def test_address_to_listen_at_tells_which_filter_is_ours(tmp_path):
    two = [ext_proc(name, name, chooses=True) for name in ("semantic", "picker")]
    clusters = [engines(), grpc_cluster("semantic", 9400), grpc_cluster("picker", 9002)]
    path = written(tmp_path, bootstrap([listener(manager(*two))], clusters))

    assert config_of(path, None, None, access_log=False).own_service.problem
    config = config_of(path, None, None, access_log=False, listen=["0.0.0.0:9002"])
    assert config.sources.request_body_mode == "BUFFERED"


def test_what_was_not_looked_at_is_said(tmp_path, caplog):
    rds = {"route_config_name": "llm", "config_source": {"ads": {}}}
    asks = listener(manager(ext_proc("decide", "lodestar", chooses=True), rds=rds))
    path = written(tmp_path, bootstrap([asks], [engines(), grpc_cluster("lodestar")]))

    warn_of_unread(config_of(path, None, None, access_log=False))

    assert "not looked at: the route configurations of xDS" in caplog.text
    assert f"{path}:" in caplog.text


def test_gateway_that_sends_its_access_log_says_how_answers_end():
    pool = watched_by("vllm", None, "models")
    assert pool == InferencePoolRef("vllm", "models")

    assert config_of(None, pool, None, access_log=True).sources.access_log_tags is not None
    without = config_of(None, pool, None, access_log=False).sources
    assert without.access_log_tags is None
    assert without.first_token


def test_options_that_do_not_go_together_are_refused(tmp_path):
    path = an_envoy_file(tmp_path)
    with pytest.raises(ValueError, match="--inference-pool NAME"):
        config_of(None, None, None, access_log=False)
    with pytest.raises(ValueError, match="leave out --settings"):
        config_of(path, None, path, access_log=False)


def test_missing_settings_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        config_of(None, InferencePoolRef("p", "n"), tmp_path / "none.yaml", access_log=False)


def test_tls_is_off_self_signed_or_a_folders(tmp_path):
    assert tls_of("off", None) is None
    assert tls_of("self-signed", None).folder is None
    assert tls_of(str(tmp_path), tmp_path / "ca") == ServerTls(tmp_path, tmp_path / "ca")


def test_who_asks_for_client_certificates_without_tls_is_told(tmp_path):
    with pytest.raises(ValueError, match="--tls-client-ca needs --tls"):
        tls_of("off", tmp_path)
    with pytest.raises(ValueError, match="--admin-client-ca needs --admin-tls"):
        admin_access_of(None, tmp_path)
