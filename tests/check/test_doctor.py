import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from builders import DEFAULT_ENVOY_FILE
from document_places import places_in
from json_patch import applied
from lodestar_extproc.check import Report, check, find_envoy
from lodestar_extproc.check.as_json import as_json
from lodestar_extproc.check.examination import examine, hints, unseen
from lodestar_extproc.check.rules import HINTS, RULES
from lodestar_extproc.check.subject import subject_of
from lodestar_extproc.config import NotEnvoyConfig
from lodestar_extproc.config.node import Node
from lodestar_extproc.config.resources import read_resources
from lodestar_extproc.config.schema import BOOTSTRAP
from trapped_files import (
    DEFAULT,
    HINTED,
    PER_ROUTE,
    TRAPS,
    WITHOUT_CURE,
    action,
    connection_manager,
    decide,
    http_filters,
    log,
    on_route,
    override,
    pool,
    route,
)

HERE = Path(__file__).parent
SHIPPED = sorted(
    path
    for path in DEFAULT_ENVOY_FILE.parent.rglob("*.yaml")
    if "static_resources:" in path.read_text()
)
MEANT = {
    "access_log_only.yaml": ["observer_missing"],
    "observer_only.yaml": ["access_log"],
}
"""What some variants leave out on purpose."""
HINTS_MEANT = {"envoy_1_36.yaml": ["access_log_tags"], "full_duplex.yaml": ["no_access_log"]}
"""Envoy 1.36 knows no such tags; Istio's endpoint pickers get no log."""


def rules_found(report: Report) -> list[str]:
    return [finding.rule for finding in report.findings]


def subject(document):
    root = Node(document, "envoy.yaml", kind=BOOTSTRAP)
    return subject_of(read_resources(root, DEFAULT_ENVOY_FILE))


def found_in(document) -> list[str]:
    return [finding.rule for finding in examine(subject(document), DEFAULT_ENVOY_FILE)]


def edited(*edits):
    document = copy.deepcopy(DEFAULT)
    for edit in edits:
        edit(document)
    return document


def cured(document, finding):
    operations = [patch.operation for patch in finding.cure]
    return applied(copy.deepcopy(document), json.loads(json.dumps(operations)))


# -- every rule --------------------------------------------------------------------------------


def test_every_rule_has_a_trap_and_every_trap_a_rule():
    rules = {rule.__name__ for rule in RULES} | {"settings", "envoy"}
    assert {trap.rule for trap in TRAPS} == rules
    assert {trap.rule for trap in HINTED} == {rule.__name__ for rule in HINTS}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_file_has_no_trap_but_what_is_meant(path, monkeypatch):
    monkeypatch.chdir(DEFAULT_ENVOY_FILE.parents[1])

    report = check(path, envoy=find_envoy())

    assert rules_found(report) == MEANT.get(path.name, [])
    assert (report.unseen, report.validated) == ((), True)
    assert [hint.rule for hint in report.hints] == HINTS_MEANT.get(path.name, [])


@pytest.mark.parametrize("trap", [t for t in TRAPS if t.rule != "envoy"], ids=str)
def test_a_trap_is_found_and_nothing_else(trap):
    looked_at = subject(trap.config)

    found = [finding.rule for finding in examine(looked_at, DEFAULT_ENVOY_FILE)]

    assert set(found) == {trap.rule}
    assert list(hints(looked_at, DEFAULT_ENVOY_FILE)) == []


@pytest.mark.parametrize("trap", HINTED, ids=str)
def test_a_hint_is_no_trap(trap):
    looked_at = subject(trap.config)

    assert [hint.rule for hint in hints(looked_at, DEFAULT_ENVOY_FILE)] == [trap.rule]
    assert list(examine(looked_at, DEFAULT_ENVOY_FILE)) == []


@pytest.mark.parametrize("trap", HINTED, ids=str)
def test_what_a_hint_says_to_write_ends_it(trap):
    document = trap.config
    (hint,) = hints(subject(document), DEFAULT_ENVOY_FILE)

    if hint.cure:
        document = cured(document, hint)
        assert list(hints(subject(document), DEFAULT_ENVOY_FILE)) == []
        assert found_in(document) == []


def test_what_envoy_refuses_is_a_finding(tmp_path):
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(edited(lambda c: pool(c).update(no_such_field=1))))

    (finding,) = check(path, envoy=find_envoy()).findings
    assert (finding.rule, "no_such_field" in finding.problem) == ("envoy", True)


def test_a_gateway_without_any_of_it_is_cured_step_by_step(tmp_path):
    path, met = HERE / "bare_gateway.yaml", set()
    for _ in range(3 * len(RULES)):
        findings = check(path).findings
        if not findings:
            break
        met |= {finding.rule for finding in findings}
        document = cured(YAML(typ="safe").load(path), findings[0])
        path = tmp_path / "cured.json"
        path.write_text(json.dumps(document))

    report = check(path, envoy=find_envoy())
    assert (report.findings, report.validated) == ((), True)
    assert len(met) >= 10


# -- no false alarm ----------------------------------------------------------------------------


def _enabled_by_the_route(config):
    """As Istio's gateway has it: both filters are off but for one route."""
    for http_filter in http_filters(config):
        if http_filter["name"].startswith("lodestar"):
            http_filter["disabled"] = True
    both = ("lodestar.decide", "lodestar.observe")
    said = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig"}
    said["config"] = {"@type": PER_ROUTE, "overrides": {}}
    route(config)["typed_per_filter_config"] = {name: copy.deepcopy(said) for name in both}


def _guardrail_beside(config):
    """Another's filter, with everything that would be a trap in ours."""
    guardrail = {
        "@type": decide(config)["@type"],
        "grpc_service": {"envoy_grpc": {"cluster_name": "guardrail"}},
        "processing_mode": {"request_body_mode": "BUFFERED", "response_body_mode": "STREAMED"},
    }
    http_filters(config).insert(0, {"name": "guardrail", "typed_config": guardrail})
    config["static_resources"]["clusters"].append({"name": "guardrail", "type": "STATIC"})


def _audit_beside(config):
    audit = copy.deepcopy(log(config))
    audit["filter"] = {"response_flag_filter": {"flags": ["UF"]}}
    audit["typed_config"]["common_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = "audit"
    connection_manager(config)["access_log"].insert(0, audit)
    config["static_resources"]["clusters"].append({"name": "audit", "type": "STATIC"})


def _only_decided(config):
    matcher = {"filter": "envoy.lb", "path": [{"key": "decision-id"}]}
    matcher["value"] = {"present_match": True}
    log(config)["filter"] = {"metadata_filter": {"matcher": matcher}}


def _limits_of_the_host(config):
    del config["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"]
    table = connection_manager(config)["route_config"]["virtual_hosts"][0]
    table["request_body_buffer_limit"] = "33554432"


def _timers_off_on_the_route(config):
    connection_manager(config)["stream_idle_timeout"] = "5s"
    connection_manager(config)["common_http_protocol_options"] = {"max_stream_duration": "5s"}
    action = route(config)["route"]
    action |= {"idle_timeout": {"seconds": 3600}, "max_stream_duration": {}}
    action["max_stream_duration"]["max_stream_duration"] = "0s"


def _header_that_clients_cannot_send(config):
    override(config)["override_host_sources"] = [{"header": "x-gateway-destination-endpoint"}]
    kind = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    strip = {
        "name": "strip",
        "typed_config": {
            "@type": f"type.googleapis.com/{kind}",
            "mutations": [{"remove": "x-gateway-destination-endpoint"}],
        },
    }
    connection_manager(config)["early_header_mutation_extensions"] = [strip]


def _shadow(config):
    pool(config)["metadata"]["filter_metadata"]["lodestar"]["shadow"] = True
    del pool(config)["load_balancing_policy"]


def _aggregate(config):
    """The route leads to a cluster of clusters, of which one is the pool."""
    kind = "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig"
    custom = {"name": "envoy.clusters.aggregate"}
    custom["typed_config"] = {"@type": kind, "clusters": ["engines"]}
    both = {"name": "both", "lb_policy": "CLUSTER_PROVIDED", "cluster_type": custom}
    config["static_resources"]["clusters"].append(both)
    action(config)["cluster"] = "both"


@pytest.mark.parametrize(
    "edit",
    [
        _aggregate,
        _enabled_by_the_route,
        _guardrail_beside,
        _audit_beside,
        _only_decided,
        _limits_of_the_host,
        _timers_off_on_the_route,
        _header_that_clients_cannot_send,
        _shadow,
        lambda c: decide(c).update(message_timeout={"seconds": 2}),
        lambda c: decide(c)["processing_mode"].update(request_body_mode="buffered"),
        lambda c: on_route(c, overrides={}),
    ],
)
def test_what_works_is_no_trap(edit):
    assert found_in(edited(edit)) == []


def test_a_certificate_that_is_not_on_this_machine_is_not_looked_at(tmp_path):
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    trusted = {"validation_context": {"trusted_ca": {"filename": "/nowhere/ca.pem"}}}
    tls = {"name": "tls", "typed_config": {"@type": kind, "common_tls_context": trusted}}
    path = tmp_path / "tls.json"
    path.write_text(json.dumps(edited(lambda c: pool(c).update(transport_socket=tls))))

    report = check(path, envoy=find_envoy())

    assert report.findings == ()
    assert [part.where for part in report.unseen] == ["/nowhere/ca.pem"]


def test_a_message_of_envoy_that_is_cut_in_a_letter_is_shown(tmp_path):
    envoy = tmp_path / "envoy"
    envoy.write_text("#!/bin/sh\nprintf 'x/1.40.0/y caf\\303'\nexit 1\n")
    envoy.chmod(0o755)

    (finding,) = check(DEFAULT_ENVOY_FILE, envoy=str(envoy)).findings
    assert "caf\ufffd" in finding.problem


# -- what was not looked at ----------------------------------------------------------------------


def _by_xds(config):
    del connection_manager(config)["route_config"]
    connection_manager(config)["rds"] = {"route_config_name": "r", "config_source": {"ads": {}}}


def _cluster_by_header(config):
    action = route(config)["route"]
    action["cluster_header"] = "x-cluster"
    del action["cluster"]


@pytest.mark.parametrize("edit", [_by_xds, _cluster_by_header])
def test_what_comes_from_elsewhere_is_said(edit):
    looked_at = subject(edited(edit))

    assert [part.where for part in unseen(looked_at, DEFAULT_ENVOY_FILE)] == ["envoy.yaml:1"]
    assert list(examine(looked_at, DEFAULT_ENVOY_FILE)) == []


# -- other files -------------------------------------------------------------------------------


def test_a_bad_eds_file_is_found(tmp_path):
    variant = (DEFAULT_ENVOY_FILE.parent / "variants" / "eds.yaml").read_text()
    path = tmp_path / "eds.yaml"
    path.write_text(variant.replace("envoy/variants/", "elsewhere/"))
    (tmp_path / "eds_endpoints.yaml").write_text("resources: []\n")

    (finding,) = check(path).findings
    assert finding.rule == "settings"
    assert "eds_endpoints.yaml:1: resources: has no assignment" in finding.problem


def test_a_trap_in_a_file_of_listeners_is_told_and_cured_there(tmp_path):
    document = edited(lambda c: route(c)["route"].pop("timeout"))
    (listener,) = document["static_resources"].pop("listeners")
    kind = "type.googleapis.com/envoy.config.listener.v3.Listener"
    lds = tmp_path / "lds.json"
    lds.write_text(json.dumps({"resources": [{"@type": kind, **listener}]}, indent=1))
    document["dynamic_resources"] = {"lds_config": {"path_config_source": {"path": str(lds)}}}
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(document))

    (finding,) = check(path).findings

    assert (finding.rule, finding.file) == ("answer_timers", str(lds))
    assert {patch.file for patch in finding.cure} == {str(lds)}
    healthy = cured(json.loads(lds.read_text()), finding)
    lds.write_text(json.dumps(healthy))
    assert check(path).findings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no static_resources"),
        ("a: 1", "no static_resources"),
        ("[", "not valid YAML"),
        ("# only a comment", "no static_resources"),
        ("apiVersion: v1\nkind: EnvoyFilter", "Kubernetes object, EnvoyFilter"),
    ],
)
def test_other_files_are_not_judged(tmp_path, text, said):
    path = tmp_path / "x.yaml"
    path.write_text(text)

    with pytest.raises(NotEnvoyConfig, match=said):
        check(path)


# -- anything at all -----------------------------------------------------------------------------

JUNK = (None, "", "x", 0, -1, 1e300, True, [], {}, [None], ["x"], {"x": None}, [[1]], {"@type": 5})


PLACES = tuple(places_in(DEFAULT))


@given(place=st.sampled_from(PLACES), junk=st.sampled_from(JUNK))
def test_any_value_anywhere_gets_a_defined_answer(place, junk):
    document = copy.deepcopy(DEFAULT)
    *above, last = place
    parent = document
    for key in above:
        parent = parent[key]
    parent[last] = junk

    looked_at = subject(document)
    findings = tuple(examine(looked_at, DEFAULT_ENVOY_FILE))
    told = tuple(hints(looked_at, DEFAULT_ENVOY_FILE))

    json.dumps(
        as_json(
            Report("envoy.yaml", findings, tuple(unseen(looked_at, DEFAULT_ENVOY_FILE)), hints=told)
        )
    )


def test_a_timer_of_a_route_to_an_aggregate_of_pools_is_found():
    document = edited(_aggregate, lambda c: action(c).pop("timeout"))
    assert found_in(document) == ["answer_timers"]


def test_the_page_has_a_row_for_every_way_into_a_trap():
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    told = set(re.findall(r"`([a-z_0-9]+)`", page))

    assert {trap.rule for trap in (*TRAPS, *HINTED)} <= told
    for trap in TRAPS:
        if trap.rule in WITHOUT_CURE:
            continue
        (row,) = (r for r in page.splitlines() if r.startswith(f"| `{trap.rule}` | {trap.name} |"))
        assert row.endswith("| 1, 1 |")
