"""What an Envoy is made of is found wherever it stands, or said as not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from envoy_files import (
    EXT_PROC,
    EXTENSIONS,
    FILTER_CONFIG,
    PER_ROUTE,
    bootstrap,
    cluster,
    engines,
    ext_proc,
    grpc_cluster,
    grpc_log,
    listener,
    manager,
    route,
    route_table,
    written,
)
from envoy_process import EnvoyProcess
from lodestar_extproc.config import NotEnvoyConfig, read_envoy_config
from lodestar_extproc.config.envoy import read_root
from lodestar_extproc.config.resources import read_resources

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(
    path for path in (ROOT / "envoy").rglob("*.yaml") if "static_resources:" in path.read_text()
)
ENVOY = Path(sys.executable).parent / "envoy"
TYPES = "type.googleapis.com/envoy"
LISTENER, CLUSTER = f"{TYPES}.config.listener.v3.Listener", f"{TYPES}.config.cluster.v3.Cluster"
ROUTES = f"{TYPES}.config.route.v3.RouteConfiguration"
EXTENSION = f"{TYPES}.config.core.v3.TypedExtensionConfig"
RESOURCE = f"{TYPES}.service.discovery.v3.Resource"
OURS = grpc_cluster("lodestar")
ADS = {"ads": {}, "resource_api_version": "V3"}
ADS_CLUSTER = {
    "ads_config": {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": {"envoy_grpc": {"cluster_name": "lodestar"}},
    }
}


def decide(**more):
    return ext_proc("lodestar.decide", "lodestar", chooses=True, **more)


def accepted(folder, document):
    """The file with *document*, which Envoy accepts."""
    path = written(folder, document)
    command = [ENVOY, "--mode", "validate", "-c", path, "-l", "error"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr
    return path


def resources(folder, document):
    path = accepted(folder, document)
    return read_resources(read_root(path), path)


def only(*filters, table=None, **more):
    return bootstrap([listener(manager(*filters, table=table, **more))], [engines(), OURS])


def by_file(folder, name, *found):
    path = written(folder, {"resources": list(found)}, name)
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def filters_of(found):
    return [f for each in found.managers for f in each.ext_proc]


def test_listeners_and_clusters_in_files_are_read(tmp_path):
    gateway = {"@type": LISTENER, **listener(manager(decide(), logs=(grpc_log("lodestar"),)))}
    named = {"@type": RESOURCE, "name": "engines", "resource": {"@type": CLUSTER, **engines()}}
    dynamic = {
        "lds_config": by_file(tmp_path, "lds.yaml", gateway),
        "cds_config": by_file(tmp_path, "cds.yaml", named, {"@type": CLUSTER, **OURS}),
    }
    path = accepted(tmp_path, {"node": {"id": "a", "cluster": "b"}, "dynamic_resources": dynamic})

    config = read_envoy_config(path)

    assert config.extproc_address == config.access_log_address == "127.0.0.1:9002"
    assert [e.address for e in config.pools[0].endpoints] == ["127.0.0.1:8000", "127.0.0.1:8001"]
    assert not config.not_looked_at


def test_routes_in_a_file_are_read_and_only_those_asked_for(tmp_path):
    tables = [
        {"@type": ROUTES, **route_table(route(to)), "name": name}
        for name, to in (("other", "tools"), ("llm", "engines"))
    ]
    rds = {"route_config_name": "llm", "config_source": by_file(tmp_path, "rds.yaml", *tables)}
    found = resources(tmp_path, only(decide(), rds=rds))

    assert [each.cluster for each in found.managers[0].routes] == ["engines"]


def test_filter_in_a_file_is_read(tmp_path):
    extension = {"@type": EXTENSION, **decide()}
    source = by_file(tmp_path, "ecds.yaml", extension)
    discovered = {
        "name": "lodestar.decide",
        "config_discovery": {"config_source": source, "type_urls": [EXT_PROC]},
    }
    (found,) = filters_of(resources(tmp_path, only(discovered)))

    assert found.config.get("processing_mode", "request_body_mode").text == "BUFFERED"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"dynamic_resources": {"lds_config": ADS, **ADS_CLUSTER}}, "the listeners of xDS"),
        ({"dynamic_resources": {"cds_config": ADS, **ADS_CLUSTER}}, "the clusters of xDS"),
    ],
)
def test_what_a_control_plane_sends_is_said(tmp_path, change, what):
    found = resources(tmp_path, only(decide()) | change)

    (passed_over,) = found.not_looked_at
    assert passed_over.what == what
    assert passed_over.where.line > 1
    assert "dynamic_resources." in str(passed_over)


def test_routes_and_filters_of_a_control_plane_are_said(tmp_path):
    dynamic = {"dynamic_resources": ADS_CLUSTER}
    rds = {"route_config_name": "llm", "config_source": ADS}
    discovered = {
        "name": "lodestar.decide",
        "config_discovery": {"config_source": ADS, "type_urls": [EXT_PROC]},
    }
    found = resources(tmp_path, only(discovered, rds=rds) | dynamic)

    said = [each.what for each in found.not_looked_at]
    assert said == ["the typed extension configs of xDS", "the route configurations of xDS"]


def test_file_that_is_not_here_is_said(tmp_path):
    path = written(
        tmp_path,
        only(decide())
        | {
            "dynamic_resources": {"cds_config": {"path_config_source": {"path": "/nowhere/c.yaml"}}}
        },
    )
    found = read_resources(read_root(path), path)

    assert "/nowhere/c.yaml: cannot be read" in found.not_looked_at[0].what


def test_bootstrap_of_a_control_plane_alone_is_one(tmp_path):
    path = written(tmp_path, {"dynamic_resources": {"lds_config": ADS, **ADS_CLUSTER}})

    assert read_resources(read_root(path), path).listeners == ()
    with pytest.raises(NotEnvoyConfig, match="no static_resources and no dynamic_resources"):
        read_root(written(tmp_path, {"policy": "learned"}))


HEADER = {
    "name": "header",
    "typed_config": {
        "@type": f"{TYPES}.type.matcher.v3.HttpRequestHeaderMatchInput",
        "header_name": "x-llm",
    },
}
MATCHED = {"single_predicate": {"input": HEADER, "value_match": {"exact": "true"}}}


def composite(action):
    matcher = {
        "matcher_list": {
            "matchers": [{"predicate": MATCHED, "on_match": {"action": action}}],
        }
    }
    return {
        "name": "lodestar.decide",
        "typed_config": {
            "@type": f"{EXTENSIONS}.common.matching.v3.ExtensionWithMatcher",
            "extension_config": {
                "name": "composite",
                "typed_config": {"@type": f"{EXTENSIONS}.filters.http.composite.v3.Composite"},
            },
            "xds_matcher": matcher,
        },
    }


def test_filter_that_a_matcher_runs_is_found_and_known_to_be_conditional(tmp_path):
    action = {
        "name": "run",
        "typed_config": {
            "@type": f"{EXTENSIONS}.filters.http.composite.v3.ExecuteFilterAction",
            "typed_config": decide(),
        },
    }
    found = resources(tmp_path, only(composite(action)))

    (inner,) = filters_of(found)
    assert inner.conditional
    assert inner.name == "lodestar.decide"
    assert read_envoy_config(tmp_path / "envoy.yaml").extproc_address == "127.0.0.1:9002"


def test_filter_that_a_matcher_may_skip_is_found(tmp_path):
    skip = {
        "name": "skip",
        "typed_config": {"@type": f"{EXTENSIONS}.filters.common.matcher.action.v3.SkipFilter"},
    }
    skipping = composite(skip)
    skipping["typed_config"]["extension_config"] = decide()
    (inner,) = filters_of(resources(tmp_path, only(skipping)))

    assert inner.conditional


def test_wrapped_filter_is_found(tmp_path):
    plain = decide()
    kind = plain["typed_config"].pop("@type")
    struct = {
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": kind,
        "value": plain["typed_config"],
    }
    (found,) = filters_of(resources(tmp_path, only({"name": "a", "typed_config": struct})))

    assert not found.conditional
    assert found.config.get("grpc_service", "envoy_grpc", "cluster_name").text == "lodestar"


def test_routes_behind_a_matcher_are_found(tmp_path):
    action = {
        "name": "route",
        "typed_config": {
            "@type": f"{TYPES}.config.route.v3.Route",
            "match": {"prefix": "/"},
            "route": {"cluster": "engines"},
        },
    }
    host = {
        "name": "all",
        "domains": ["*"],
        "matcher": {
            "matcher_list": {"matchers": [{"predicate": MATCHED, "on_match": {"action": action}}]}
        },
    }
    table = {"name": "t", "virtual_hosts": [host]}
    found = resources(tmp_path, only(decide(), table=table))

    assert [each.cluster for each in found.managers[0].routes] == ["engines"]


def one_listener(places, name="http"):
    """Of a filter and one route, with what each place says of the filter."""

    def said(place):
        words = places.get(place)
        return {"typed_per_filter_config": {"lodestar.decide": words}} if words else {}

    table = route_table(route(**said("own")), **said("table"))
    table["virtual_hosts"][0] |= said("host")
    entry = decide(failure_mode_allow=True) | {"disabled": places.get("disabled", False)}
    return listener(manager(entry, table=table, stat_prefix=name), name)


OFF = {"@type": PER_ROUTE, "disabled": True}
ON = {"@type": PER_ROUTE, "overrides": {}}
OUT = {"@type": FILTER_CONFIG, "disabled": True}
IN = {"@type": FILTER_CONFIG, "config": ON}


PLACES = [
    ({}, True),
    ({"own": OFF}, False),
    ({"host": OFF}, False),
    ({"host": OFF, "own": ON}, True),
    ({"table": OUT}, False),
    ({"table": OUT, "own": ON}, True),
    ({"own": OUT}, False),
    ({"disabled": True}, False),
    ({"disabled": True, "own": ON}, True),
    ({"disabled": True, "own": IN}, True),
    ({"disabled": True, "host": IN}, True),
    ({"disabled": True, "host": IN, "own": OUT}, False),
    ({"disabled": True, "own": OFF}, False),
    ({"table": OUT, "own": {"@type": FILTER_CONFIG, "config": OFF}}, False),
]


@pytest.mark.parametrize(("places", "runs"), PLACES)
def test_innermost_place_says_whether_a_filter_runs(tmp_path, places, runs):
    listeners = [one_listener(places)]
    (found,) = resources(tmp_path, bootstrap(listeners, [engines(), OURS])).managers
    (way,) = found.routes

    assert way.of(found.ext_proc[0]).runs is runs


async def test_envoy_runs_a_filter_where_we_say_it_runs(tmp_path):
    listeners = [one_listener(places, f"case{i}") for i, (places, _) in enumerate(PLACES)]
    async with EnvoyProcess(bootstrap(listeners, [engines(), OURS]), tmp_path) as envoy:
        found = json.loads(await envoy.admin("/listeners?format=json"))["listener_statuses"]
        async with aiohttp.ClientSession() as session:
            for each in found:
                port = each["local_address"]["socket_address"]["port_value"]
                async with session.get(f"http://127.0.0.1:{port}/"):
                    pass
        counted = await envoy.stats("ext_proc.streams_started")

    called = [counted[f"http.case{i}.ext_proc.streams_started"] > 0 for i in range(len(PLACES))]
    assert called == [runs for _, runs in PLACES]


def test_what_a_route_overrides_holds_there(tmp_path):
    quiet = {"request_header_mode": "SKIP", "request_body_mode": "NONE"}
    inner = {"@type": PER_ROUTE, "overrides": {"processing_mode": quiet}}
    outer = {
        "@type": PER_ROUTE,
        "overrides": {"failure_mode_allow": True, "processing_mode": {"request_body_mode": 1}},
    }
    listeners = [one_listener({"host": outer, "own": inner})]
    (gateway,) = resources(tmp_path, bootstrap(listeners, [engines(), OURS])).managers
    (way,) = gateway.routes
    found = way.of(gateway.ext_proc[0])

    assert found.get("processing_mode", "request_body_mode").text == "NONE"
    assert found.get("failure_mode_allow").flag
    assert found.get("grpc_service", "envoy_grpc", "cluster_name").text == "lodestar"
    assert read_envoy_config(tmp_path / "envoy.yaml").sources.request_body_mode == ""


def test_another_filters_override_does_not_count(tmp_path):
    table = route_table(route(typed_per_filter_config={"guardrail": OFF}))
    guard = ext_proc("guardrail", "lodestar")
    found = resources(tmp_path, only(decide(), guard, table=table))
    (way,) = found.managers[0].routes

    assert [way.of(f).runs for f in found.managers[0].ext_proc] == [True, False]


def test_weighted_clusters_have_words_of_their_own(tmp_path):
    entries = [
        {"name": "engines", "weight": 1, "typed_per_filter_config": {"lodestar.decide": OFF}},
        {"name": "tools", "weight": 1},
    ]
    weighted = {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": entries}}}
    document = only(decide(), table=route_table(weighted))
    document["static_resources"]["clusters"].append(cluster("tools"))
    found = resources(tmp_path, document)

    ways = [(w.cluster, w.of(found.managers[0].ext_proc[0]).runs) for w in found.managers[0].routes]
    assert ways == [("engines", False), ("tools", True)]


def test_field_that_envoy_does_not_know_is_said(tmp_path):
    document = only(decide())
    document["static_resources"]["clusters"][0]["conect_timeout"] = "1s"
    path = written(tmp_path, document)

    (passed_over,) = read_envoy_config(path).not_looked_at
    assert "conect_timeout is no field of Cluster in Envoy 1." in passed_over.what
    assert passed_over.where.key == "static_resources.clusters[0].conect_timeout"


def test_route_to_a_cluster_that_a_header_names_is_said(tmp_path):
    table = route_table({"match": {"prefix": "/"}, "route": {"cluster_header": "x-to"}})
    found = resources(tmp_path, only(decide(), table=table))

    assert "a header or a plugin names the cluster" in found.not_looked_at[0].what


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_nothing_of_a_shipped_file_is_passed_over(path, monkeypatch):
    monkeypatch.chdir(ROOT)

    assert not read_envoy_config(path).not_looked_at
