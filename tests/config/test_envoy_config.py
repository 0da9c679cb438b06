import json

import pytest
from ruamel.yaml import YAML

from builders import DEFAULT_ENVOY_FILE, an_envoy_file, with_route_metadata
from lodestar_extproc.config import (
    ConfigError,
    EndpointSettings,
    Member,
    NotEnvoyConfig,
    PoolSettings,
    Resolution,
    TimingSources,
    read_envoy_config,
)

ENDPOINT = "{lodestar: {accelerator: default}}"
FIRST = "address: 127.0.0.1, port_value: 8000"
TWO = (
    "      - lb_endpoints:\n"
    "        - health_status: DRAINING\n"
    "          endpoint: {address: {socket_address: {address: 127.0.0.9, port_value: 8000}}}\n"
    "        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8000"
)


def changed(tmp_path, *edits):
    return read_envoy_config(an_envoy_file(tmp_path, *edits))


def refused(tmp_path, *edits):
    with pytest.raises(ConfigError) as error:
        changed(tmp_path, *edits)
    return error.value


def line_of(text):
    return DEFAULT_ENVOY_FILE.read_text().split(text)[0].count("\n") + 1


def test_default_file_is_one_pool_of_two_endpoints():
    config = read_envoy_config(DEFAULT_ENVOY_FILE)

    pool = config.pool("engines")
    assert config.pools == (pool,)
    assert pool.settings == PoolSettings(hold_limit_s=2.0)
    assert [e.address for e in pool.endpoints] == ["127.0.0.1:8000", "127.0.0.1:8001"]
    assert pool.endpoints[0].metrics_url == "http://127.0.0.1:8000/metrics"
    assert pool.endpoints[0].health_url == "http://127.0.0.1:8000/health"


def test_default_file_has_every_timing_source_at_one_address():
    config = read_envoy_config(DEFAULT_ENVOY_FILE)

    tags = config.sources.access_log_tags
    assert config.sources == TimingSources("BUFFERED", "", observer=True, access_log_tags=tags)
    assert {"ttft_us", "e2e_us", "decision", "stream"} <= tags
    assert config.extproc_address == config.access_log_address == "127.0.0.1:9002"


def test_json_is_read_alike(tmp_path):
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(YAML(typ="safe").load(DEFAULT_ENVOY_FILE)))

    as_yaml, as_json = read_envoy_config(DEFAULT_ENVOY_FILE), read_envoy_config(path)

    assert as_json.pools[0].endpoints == as_yaml.pools[0].endpoints
    assert as_json.sources == as_yaml.sources


def test_unknown_envoy_fields_do_not_stop_us(tmp_path):
    config = changed(
        tmp_path, ("    type: STATIC\n", "    type: STATIC\n    from_the_future: {a: [1]}\n")
    )

    assert len(config.pools) == 1


def test_endpoint_metadata_shapes_the_endpoint(tmp_path):
    own = (
        "{lodestar: {accelerator: h100, engine: sglang, metrics_port: 9100, metrics_path: /m,"
        " kv_capacity_tokens: 100000, token_budget: 8192, prefix_caching: false}}"
    )
    config = changed(tmp_path, (ENDPOINT, own))

    endpoint = config.pools[0].endpoints[0]
    assert (endpoint.accelerator, endpoint.engine) == ("h100", "sglang")
    assert endpoint.metrics_url == "http://127.0.0.1:9100/m"
    assert endpoint.health_url == "http://127.0.0.1:8000/health"
    assert (endpoint.kv_capacity_tokens, endpoint.token_budget) == (100_000.0, 8192.0)
    assert endpoint.prefix_caching is False


def test_pool_paths_and_health_port_go_into_the_urls(tmp_path):
    config = changed(
        tmp_path,
        (
            "          policy: learned\n",
            "          metrics_path: /stats\n          health_path: /ping\n",
        ),
        (
            f"{{socket_address: {{{FIRST}}}}}",
            f"{{socket_address: {{{FIRST}}}}}, health_check_config: {{port_value: 81}}",
        ),
    )

    endpoint = config.pools[0].endpoints[0]
    assert endpoint.metrics_url == "http://127.0.0.1:8000/stats"
    assert endpoint.health_url == "http://127.0.0.1:81/ping"


def test_ipv6_addresses_are_written_as_envoy_writes_them(tmp_path):
    config = changed(tmp_path, (FIRST, 'address: "fd00:0::07", port_value: 8000'))

    assert config.pools[0].endpoints[0].address == "[fd00::7]:8000"
    assert config.pools[0].endpoints[0].metrics_url == "http://[fd00::7]:8000/metrics"


def test_draining_endpoint_is_left_out_and_a_repeated_one_counts_once(tmp_path):
    config = changed(
        tmp_path,
        ("port_value: 8001}}}", "port_value: 8000}}}"),
        (
            "      - lb_endpoints:\n        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8000",
            TWO,
        ),
    )

    assert [e.address for e in config.pools[0].endpoints] == ["127.0.0.1:8000"]


def test_dns_pool_keeps_its_names_for_resolution(tmp_path):
    config = changed(
        tmp_path,
        (
            "    type: STATIC\n    # Engines",
            "    type: STRICT_DNS\n    dns_refresh_rate: 0.1s\n    # Engines",
        ),
        (FIRST, "address: vllm.local, port_value: 8000"),
    )

    pool = config.pools[0]
    assert pool.resolution is Resolution.STRICT_DNS
    assert pool.endpoints == ()
    assert pool.members[0] == Member("vllm.local", 8000, EndpointSettings())
    assert pool.dns.refresh_s == 1.0, "bounded"


@pytest.mark.parametrize(
    ("single", "resolution"), [("false", Resolution.STRICT_DNS), ("true", Resolution.LOGICAL_DNS)]
)
def test_dns_cluster_of_newer_envoys_is_read(tmp_path, single, resolution):
    dns = (
        '{"@type": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster,'
        f" dns_refresh_rate: 9s, all_addresses_in_single_endpoint: {single}}}"
    )
    config = changed(
        tmp_path,
        (
            "    type: STATIC\n    # Engines",
            f"    cluster_type: {{name: d, typed_config: {dns}}}\n    # Engines",
        ),
        (FIRST, "address: vllm.local, port_value: 8000"),
    )

    assert config.pools[0].resolution is resolution
    assert config.pools[0].dns.refresh_s == 9.0


def test_eds_file_of_another_mount_is_found_beside_the_configuration(tmp_path):
    (tmp_path / "eds.yaml").write_text("resources: []\n")
    eds = "{path_config_source: {path: /etc/envoy-elsewhere/eds.yaml}, resource_api_version: V3}"
    config = changed(
        tmp_path,
        (
            "    type: STATIC\n    # Engines",
            f"    type: EDS\n    eds_cluster_config: {{service_name: llm, eds_config: {eds}}}\n    # Engines",
        ),
    )

    assert config.pools[0].eds.path == tmp_path / "eds.yaml"
    assert config.pools[0].eds.cluster_name == "llm"


def test_route_override_is_read_with_its_route(tmp_path):
    config = changed(tmp_path, with_route_metadata("x-lodestar-policy", "least_request"))

    (override,) = config.overrides
    assert (override.cluster, override.pool, override.policy) == ("engines", None, "least_request")
    assert override.line == line_of("- match: {prefix: /}")


def test_what_every_filter_call_carries_holds_for_every_route(tmp_path):
    pool = "{key: x-lodestar-pool, value: engines}, {key: other, value: thing}"
    everywhere = (
        "{envoy_grpc: {cluster_name: lodestar}}\n              processing_mode",
        f"{{envoy_grpc: {{cluster_name: lodestar}}, initial_metadata: [{pool}]}}\n              processing_mode",
    )
    config = changed(tmp_path, everywhere, with_route_metadata("x-lodestar-cost", "ttft"))

    (override,) = config.overrides
    assert (override.pool, override.cost) == ("engines", "ttft")


def test_innermost_override_wins_key_by_key(tmp_path):
    per_route = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
    headers = "[{key: x-lodestar-policy, value: random}, {key: x-lodestar-cost, value: ttft}]"
    of_host = (
        f'              typed_per_filter_config: {{lodestar.decide: {{"@type": {per_route},'
        f" overrides: {{grpc_initial_metadata: {headers}}}}}}}\n"
    )
    config = changed(
        tmp_path,
        ('              domains: ["*"]\n', f'              domains: ["*"]\n{of_host}'),
        with_route_metadata("x-lodestar-policy", "least_request"),
    )

    (override,) = config.overrides
    assert (override.policy, override.cost) == ("least_request", "ttft")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("x-lodestar-polcy", "random", "did you mean x-lodestar-policy?"),
        ("x-lodestar-pool", "engine", "did you mean engines?"),
        ("x-lodestar-policy", "fastest", '"fastest" is not one of'),
        ("x-lodestar-cost", "price", '"price" is not one of externality, ttft'),
    ],
)
def test_wrong_route_override_is_refused(tmp_path, key, value, problem):
    error = refused(tmp_path, with_route_metadata(key, value))

    assert problem in error.problem
    assert "grpc_initial_metadata[0]" in error.key


def test_mistyped_setting_names_line_key_nearest_and_known_ones(tmp_path):
    error = refused(tmp_path, ("          policy: learned\n", "          polcy: learned\n"))

    line = (
        DEFAULT_ENVOY_FILE.read_text()[
            : DEFAULT_ENVOY_FILE.read_text().index("policy: learned")
        ].count("\n")
        + 1
    )
    assert error.line == line
    assert error.key == "static_resources.clusters[0].metadata.filter_metadata.lodestar.polcy"
    assert "did you mean policy?" in error.problem
    assert "scrape_interval_s" in error.problem
    assert str(error).startswith(f"{tmp_path}/envoy.yaml:{line}: static_resources.")


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (("scrape_interval_s: 0.2", "scrape_interval_s: fast"), '"fast" is not a number'),
        (("scrape_interval_s: 0.2", "scrape_interval_s: 9"), "scrape_stale_s"),
        ((ENDPOINT, "{lodestar: {gpu: a30}}"), "unknown; Known: accelerator"),
        ((ENDPOINT, "{lodestar: a30}"), "is not a mapping of settings"),
        ((FIRST, "address: vllm.local, port_value: 8000"), "needs a cluster of type STRICT_DNS"),
        ((FIRST, "address: 127.0.0.1, port_value: 0"), "0 is not a port"),
        ((FIRST, "address: 127.0.0.1"), "nothing is not a port"),
        ((f"{{socket_address: {{{FIRST}}}}}", "{pipe: {path: /run/vllm}}"), "reached over TCP"),
        (
            ("    type: STATIC\n    # Engines", "    type: ORIGINAL_DST\n    # Engines"),
            "one of STATIC, STRICT_DNS",
        ),
        (
            ("    type: STATIC\n    # Engines", "    type: EDS\n    # Engines"),
            "path_config_source.path",
        ),
        (("        lodestar:\n", "        lodestr:\n"), "did you mean lodestar?"),
        (("        lodestar:\n", "        somebody:\n"), "no cluster is a pool"),
    ],
)
def test_impossible_configuration_is_refused(tmp_path, edit, problem):
    error = refused(tmp_path, edit)

    assert problem in str(error)
    assert error.line > 1


@pytest.mark.parametrize("text", ["", "a: 1", "[]", "just text", "static_resources:"])
def test_other_files_are_not_envoy_configurations(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)

    with pytest.raises(NotEnvoyConfig, match="static_resources"):
        read_envoy_config(path)


def test_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_envoy_config(tmp_path / "nowhere.yaml")
