"""Which configuration the options of `serve` come to."""

from __future__ import annotations

import pytest

from builders import an_envoy_file
from lodestar_extproc.commands.serve import config_of, tls_of, watched_by
from lodestar_extproc.config import ConfigError, EnvoyConfig, InferencePoolRef, ServiceRef


def test_endpoints_of_an_envoy_configuration_may_come_from_a_service(tmp_path):
    service = watched_by(None, "vllm:http", "models")
    config = config_of(an_envoy_file(tmp_path), service, None, access_log=False)

    assert isinstance(config, EnvoyConfig)
    (pool,) = config.pools
    assert pool.kubernetes.watched == ServiceRef("vllm", "models", "http")
    assert pool.endpoints == ()
    assert pool.settings.policy == "learned"


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
    assert tls_of("off") is None
    assert tls_of("self-signed").folder is None
    assert tls_of(str(tmp_path)).folder == tmp_path
