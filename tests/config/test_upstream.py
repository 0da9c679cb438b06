"""What a pool's cluster says of how its endpoints are reached; Envoy accepts every file here."""

import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from envoy_files import (
    EXTENSIONS,
    address,
    bootstrap,
    cluster,
    endpoint,
    engines,
    ext_proc,
    grpc_cluster,
    listener,
    manager,
    written,
)
from lodestar_extproc.config import (
    ConfigError,
    EdsFile,
    Resolution,
    read_eds_members,
    read_envoy_config,
)
from lodestar_extproc.config.upstream import DnsFamily
from lodestar_extproc.encryption import Pem, UpstreamTls

ENVOY = Path(sys.executable).parent / "envoy"
TLS = f"{EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext"
BLOCK = {"filter_metadata": {"lodestar": {"policy": "random"}}}
CHECK = {"timeout": "1s", "interval": "2s", "unhealthy_threshold": 2, "healthy_threshold": 1}


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A certificate and its key, in files."""
    folder = tmp_path_factory.mktemp("pem")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=engines"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    return certificate, key


def read(folder, pool, **more):
    path = written(
        folder,
        bootstrap(
            [listener(manager(ext_proc("decide", "lodestar", chooses=True)))],
            [pool, grpc_cluster("lodestar")],
        )
        | more,
    )
    command = [ENVOY, "--mode", "validate", "-c", path, "-l", "error"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr
    return read_envoy_config(path)


def tls_of(folder, common=None, **more):
    context = {"@type": TLS, **({"common_tls_context": common} if common else {})}
    context |= {name: more.pop(name) for name in ("sni", "auto_host_sni") if name in more}
    socket = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    config = read(folder, engines(transport_socket=socket), **more)
    return config.pools[0].transports.otherwise, config


def test_cluster_without_a_transport_socket_is_plain(tmp_path):
    transports = read(tmp_path, engines()).pools[0].transports

    assert transports.otherwise.tls is None
    assert not transports.otherwise.unread


def test_tls_without_a_context_trusts_any_certificate(tmp_path):
    transport, _ = tls_of(tmp_path)

    assert transport.tls == UpstreamTls()
    assert not transport.tls.verifies


def test_tls_with_files_names_and_a_client_certificate_is_read(tmp_path, pem):
    certificate, key = pem
    common = {
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(certificate)},
                "private_key": {"filename": str(key)},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(certificate)},
            "match_typed_subject_alt_names": [
                {"san_type": "DNS", "matcher": {"exact": "vllm.local"}}
            ],
        },
    }
    transport, _ = tls_of(tmp_path, common, sni="vllm.local")

    assert transport.tls == UpstreamTls(
        trusted_ca=Pem(certificate),
        certificate=Pem(certificate),
        private_key=Pem(key),
        server_name="vllm.local",
        subject_names=("vllm.local",),
    )
    assert transport.tls.verifies


@pytest.mark.parametrize("how", ["inline_string", "inline_bytes"])
def test_certificate_that_is_written_into_the_file_is_read(tmp_path, pem, how):
    text = pem[0].read_text()
    inline = b64encode(text.encode()).decode() if how == "inline_bytes" else text
    transport, _ = tls_of(tmp_path, {"validation_context": {"trusted_ca": {how: inline}}})

    assert transport.tls.trusted_ca == Pem(text=text)


def test_combined_context_and_static_secret_are_read(tmp_path, pem):
    combined = {
        "default_validation_context": {
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a"}}]
        },
        "validation_context_sds_secret_config": {"name": "ca"},
    }
    ca = {"name": "ca", "validation_context": {"trusted_ca": {"filename": str(pem[0])}}}
    context = {"@type": TLS, "common_tls_context": {"combined_validation_context": combined}}
    socket = {"name": "tls", "typed_config": context}
    document = bootstrap([], [engines(transport_socket=socket)])
    document["static_resources"]["secrets"] = [ca]
    config = read(tmp_path, document["static_resources"]["clusters"][0], **document)

    tls = config.pools[0].transports.otherwise.tls
    assert tls.trusted_ca == Pem(pem[0])
    assert tls.subject_names == ("a",)


def test_secret_in_a_file_is_read(tmp_path, pem):
    secret = {
        "@type": f"{EXTENSIONS}.transport_sockets.tls.v3.Secret",
        "name": "ca",
        "validation_context": {"trusted_ca": {"filename": str(pem[0])}},
    }
    file = written(tmp_path, {"resources": [secret]}, "sds.yaml")
    source = {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"}
    common = {"validation_context_sds_secret_config": {"name": "ca", "sds_config": source}}
    transport, config = tls_of(tmp_path, common)

    assert transport.tls.trusted_ca == Pem(pem[0])
    assert not config.not_looked_at


def test_secret_of_a_control_plane_is_said(tmp_path):
    source = {"ads": {}, "resource_api_version": "V3"}
    common = {"validation_context_sds_secret_config": {"name": "ca", "sds_config": source}}
    context = {"@type": TLS, "common_tls_context": common}
    pool = engines(transport_socket={"name": "tls", "typed_config": context})
    config = read_envoy_config(written(tmp_path, bootstrap([], [pool])))

    assert config.pools[0].transports.otherwise.tls == UpstreamTls()
    assert [part.what for part in config.not_looked_at] == ["the secret ca of xDS (SDS)"]


def test_endpoint_has_the_transport_that_its_metadata_asks_for(tmp_path):
    matches = [
        {
            "name": "mtls",
            "match": {"mode": "tls"},
            "transport_socket": {"name": "t", "typed_config": {"@type": TLS, "sni": "engine"}},
        },
        {
            "name": "plain",
            "match": {},
            "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": {
                    "@type": f"{EXTENSIONS}.transport_sockets.raw_buffer.v3.RawBuffer"
                },
            },
        },
    ]
    asks = {"filter_metadata": {"envoy.transport_socket_match": {"mode": "tls"}}}
    pool = engines(transport_socket_matches=matches)
    pool["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"] = asks
    first, second = read(tmp_path, pool).pools[0].members

    assert first.transport.tls.server_name == "engine"
    assert second.transport.tls is None


def test_health_check_is_read_with_path_host_statuses_and_ports(tmp_path):
    http = {
        "path": "/v1/models",
        "host": "vllm",
        "expected_statuses": [{"start": 200, "end": 205}, {"start": "429", "end": "430"}],
    }
    pool = engines(health_checks=CHECK | {"alt_port": 8081, "http_health_check": http})
    entry = pool["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    entry["health_check_config"] = {"port_value": 9000, "hostname": "one"}
    read_pool = read(tmp_path, pool).pools[0]
    health, (first, second) = read_pool.health, read_pool.members

    assert (health.path, health.host, health.method, health.port) == (
        "/v1/models",
        "vllm",
        "GET",
        8081,
    )
    assert [health.is_healthy(s) for s in (200, 204, 205, 429)] == [True, True, False, True]
    assert (first.health_port, first.health_host, first.checked) == (9000, "one", True)
    assert (second.health_port, second.health_host) == (None, "")


def test_health_check_of_another_kind_is_no_path_to_ask(tmp_path):
    pool = engines(health_checks=[CHECK | {"tcp_health_check": {}}])

    assert read(tmp_path, pool).pools[0].health is None


def test_priorities_health_and_factors_are_read(tmp_path):
    levels = [
        {
            "lb_endpoints": [
                endpoint("10.0.0.1", 1),
                endpoint("10.0.0.2", 1, health_status="draining"),
            ]
        },
        {"priority": "1", "lb_endpoints": [endpoint("10.0.0.3", 1, health_status=5)]},
        {"priority": 2, "lb_endpoints": endpoint("10.0.0.4", 1, health_status=2)},
    ]
    assignment = {
        "cluster_name": "engines",
        "endpoints": levels,
        "policy": {"overprovisioning_factor": 200},
    }
    pool = cluster(
        "engines",
        metadata=BLOCK,
        load_assignment=assignment,
        common_lb_config={"healthy_panic_threshold": {"value": 25}},
    )
    found = read(tmp_path, pool).pools[0]

    seen = [(m.host, m.priority, m.degraded) for m in found.members]
    assert seen == [("10.0.0.1", 0, False), ("10.0.0.3", 1, True)]
    assert (found.overprovisioning, found.panic_ratio) == (2.0, 0.25)


CARES = {
    "name": "cares",
    "typed_config": {
        "@type": f"{EXTENSIONS}.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        "resolvers": [address("127.0.0.1", 8600)],
    },
}
DNS_CLUSTER = {
    "name": "envoy.clusters.dns",
    "typed_config": {
        "@type": f"{EXTENSIONS}.clusters.dns.v3.DnsCluster",
        "dns_lookup_family": "v4_preferred",
        "respect_dns_ttl": True,
        "dns_refresh_rate": {"seconds": 7},
        "typed_dns_resolver_config": CARES,
    },
}


def named(**more):
    return cluster("engines", endpoint("vllm.local", 8000), metadata=BLOCK, **more)


@pytest.mark.parametrize(
    ("pool", "resolution"),
    [
        (
            named(
                type="strict_dns",
                dns_lookup_family=3,
                respect_dns_ttl="true",
                dns_refresh_rate="7s",
                typed_dns_resolver_config=CARES,
            ),
            Resolution.STRICT_DNS,
        ),
        (
            {k: v for k, v in named(cluster_type=DNS_CLUSTER).items() if k != "type"},
            Resolution.STRICT_DNS,
        ),
    ],
    ids=["fields", "extension"],
)
def test_names_are_resolved_as_the_cluster_says(tmp_path, pool, resolution):
    found = read(tmp_path, pool).pools[0]

    assert found.resolution is resolution
    assert found.dns.family is (DnsFamily.V4_PREFERRED)
    assert (found.dns.resolvers, found.dns.refresh_s) == (("127.0.0.1:8600",), 7.0)
    assert found.dns.respect_ttl


def test_resolver_of_the_whole_envoy_is_that_of_a_cluster_that_names_none(tmp_path):
    found = read(tmp_path, named(type="LOGICAL_DNS"), typed_dns_resolver_config=CARES).pools[0]

    assert found.dns.resolvers == ("127.0.0.1:8600",)
    assert found.resolution is Resolution.LOGICAL_DNS


@pytest.mark.parametrize("name", ["strict_dns", "logical_dns"])
def test_type_by_the_name_of_an_extension_is_read(tmp_path, name):
    pool = named(cluster_type={"name": f"envoy.cluster.{name}"})
    del pool["type"]

    assert read(tmp_path, pool).pools[0].resolution == name.upper()


def test_endpoints_of_a_control_plane_are_said_and_refused_only_by_who_needs_them(tmp_path):
    ads = {"ads_config": {"api_type": "GRPC", "transport_api_version": "V3"}}
    ads["ads_config"]["grpc_services"] = {"envoy_grpc": {"cluster_name": "lodestar"}}
    eds = {"eds_config": {"ads": {}, "resource_api_version": "V3"}}
    pool = cluster("engines", metadata=BLOCK, eds_cluster_config=eds)
    config = read(tmp_path, pool | {"type": "EDS"}, dynamic_resources=ads)

    assert config.pools[0].endpoints_by_xds
    assert [part.what for part in config.not_looked_at] == ["its endpoints of xDS"]


def test_file_with_two_assignments_is_none_as_for_envoy(tmp_path):
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    resources = [{"@type": kind, "cluster_name": name, "endpoints": []} for name in ("a", "b")]
    file = EdsFile(written(tmp_path, {"resources": resources}), "a")

    with pytest.raises(ConfigError, match="one assignment from a file, and here are a, b"):
        read_eds_members(file)
