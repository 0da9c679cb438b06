"""What a value means in an Envoy file; each right side is what Envoy 1.40 shows in /config_dump."""

import importlib.util
import json
import textwrap
from pathlib import Path

import pytest

from lodestar_extproc.config.node import parse_node
from lodestar_extproc.config.schema import Kind, envoy_schema

ROOT = Path(__file__).parents[2]
CLUSTER = Kind("envoy.config.cluster.v3.Cluster")
MANAGER = Kind("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager")
EXT_PROC = "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"


def cluster(text):
    return parse_node(text, "f.yaml", CLUSTER)


def filters(text):
    return parse_node(text, "f.yaml", MANAGER).get("http_filters").items()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("0.5s", 0.5),
        ('"0.5s"', 0.5),
        ("010s", 10.0),
        ("1.123456789s", 1.123456789),
        ("{seconds: 2}", 2.0),
        ('{seconds: "2", nanos: 500000000}', 2.5),
        ("{nanos: 250000000}", 0.25),
        ("null", None),
        ("~", None),
        ("500ms", None),
        ("5", None),
        (".5s", None),
        ("1m", None),
    ],
)
def test_duration_is_read_in_every_form_envoy_takes_and_in_no_other(written, seconds):
    assert cluster(f"connect_timeout: {written}").get("connect_timeout").seconds == seconds


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("STRICT_DNS", "STRICT_DNS"),
        ("strict_dns", "STRICT_DNS"),
        ("Strict_Dns", "STRICT_DNS"),
        ("1", "STRICT_DNS"),
        ('"1"', "STRICT_DNS"),
        ("0", "STATIC"),
        ("99", "99"),
    ],
)
def test_enum_is_read_by_its_name_in_any_case_and_by_its_number(written, name):
    assert cluster(f"type: {written}").get("type").text == name


@pytest.mark.parametrize(
    "written", ["true", "yes", "on", "y", "Y", "YES", "On", "TRUE", '"true"', '"1"', "yEs"]
)
def test_truth_is_read_as_envoy_reads_it(written):
    assert cluster(f"respect_dns_ttl: {written}").get("respect_dns_ttl").flag


@pytest.mark.parametrize("written", ["false", "no", "off", "n", "N", '"false"', "null"])
def test_what_is_not_true_is_false(written):
    assert not cluster(f"respect_dns_ttl: {written}").get("respect_dns_ttl").flag


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("5", 5),
        ('"5"', 5),
        ("5.0", 5),
        ("1e3", 1000),
        ("0x10", 16),
        ("010", 8),
        ("+5", 5),
        (".5e1", 5),
        ('"05"', 5),
        ("4294967295", 4294967295),
        ("{value: 5}", 5),
        ("{}", 0),
        ("null", None),
    ],
)
def test_number_and_its_wrapper_are_read_in_every_form(written, number):
    node = cluster(f"per_connection_buffer_limit_bytes: {written}")

    assert node.get("per_connection_buffer_limit_bytes").number == number


@pytest.mark.parametrize("written", ["1.10", "1e3", "99999999999", "2020-01-01", "1_0", '"yes"'])
def test_text_stays_as_it_is_written(written):
    assert cluster(f"name: {written}").get("name").text == written.strip('"')


def test_letter_that_json_writes_as_two_escapes_is_one():
    assert cluster('{"name": "\\ud83d\\ude80"}').get("name").text == "\N{ROCKET}"


def test_later_documents_are_passed_over():
    assert cluster("name: a\n---\nname: b\n---\n{").get("name").text == "a"


def test_last_of_keys_that_stand_twice_holds():
    node = cluster("name: a\ntype: 1\nname: b\n").get("name")

    assert (node.text, node.line) == ("b", 3)


def test_ignored_keys_and_anchors_are_followed_as_envoy_follows_them():
    node = cluster("!ignore x: &fast 0.1s\nconnect_timeout: *fast\n")

    assert node.get("connect_timeout").seconds == 0.1
    assert [name for name, _ in node.entries()] == ["connect_timeout"]


def test_single_element_may_stand_without_brackets():
    (check,) = cluster("health_checks: {timeout: 1s}").get("health_checks").items()

    assert check.get("timeout").seconds == 1.0
    assert check.key == "health_checks"


def test_names_of_metadata_are_no_fields_and_stay_as_written():
    node = cluster("metadata: {filterMetadata: {some_name: {a_b: 1}, someName: {aB: 2}}}")
    entries = dict(node.get("metadata", "filter_metadata").entries())

    assert entries["someName"].get("aB").number == 2
    assert not node.get("metadata", "filter_metadata", "another_name")
    assert [name for name, _ in node.get("metadata").entries()] == ["filter_metadata"]


XDS_STRUCT = f"""
  "@type": type.googleapis.com/xds.type.v3.TypedStruct
  type_url: type.googleapis.com/{EXT_PROC}
  value: {{processing_mode: {{request_body_mode: Buffered}}}}
"""
UDPA_STRUCT = f"""
  "@type": type.googleapis.com/udpa.type.v1.TypedStruct
  typeUrl: {EXT_PROC}
  value: {{processingMode: {{requestBodyMode: BUFFERED}}}}
"""


@pytest.mark.parametrize(
    "config",
    [
        f'{{"@type": type.googleapis.com/{EXT_PROC}, processingMode: {{requestBodyMode: buffered}}}}',
        f'{{"@type": any.host/{EXT_PROC}, processing_mode: {{request_body_mode: 2}}}}',
        XDS_STRUCT,
        UDPA_STRUCT,
    ],
)
def test_message_is_read_however_it_is_wrapped(config):
    config = textwrap.indent(config, "  ")
    (http_filter,) = filters(f"http_filters:\n- name: a\n  typed_config: {config}")
    node = http_filter.get("typed_config")

    assert node.type_name == "ExternalProcessor"
    assert node.get("processing_mode", "request_body_mode").text == "BUFFERED"


def test_wrapped_message_without_a_value_is_one_without_fields():
    struct = f'{{"@type": x.y/xds.type.v3.TypedStruct, type_url: {EXT_PROC}}}'
    (http_filter,) = filters(f"http_filters: [{{typed_config: {struct}}}]")

    assert http_filter.get("typed_config")
    assert not http_filter.get("typed_config", "grpc_service")


def test_schema_is_what_the_installed_envoy_holds():
    path = ROOT / "scripts" / "envoy_schema.py"
    spec = importlib.util.spec_from_file_location("envoy_schema", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    envoy = script.installed_envoy()
    if script.version_of(envoy) != envoy_schema().envoy:
        pytest.skip(f"the schema is of Envoy {envoy_schema().envoy}")

    written = (ROOT / "lodestar_extproc" / "config" / "envoy_schema.json").read_text()
    assert json.loads(written) == script.schema(envoy)
