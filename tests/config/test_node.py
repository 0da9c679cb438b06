import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.config import ConfigError
from lodestar_extproc.config.node import Node, parse_node

TEXT = """\
static_resources:
  clusters:
  - name: a
    connect_timeout: 0.25s
  - {name: b, connectTimeout: 1s}
"""


def clusters(text=TEXT):
    return list(parse_node(text, "f.yaml").get("static_resources", "clusters").items())


def test_value_knows_its_line_and_path():
    a, b = clusters()

    assert (a.get("name").line, b.get("name").line) == (3, 5)
    assert a.get("connect_timeout").line == 4
    assert a.get("connect_timeout").key == "static_resources.clusters[0].connect_timeout"


def test_camel_case_names_are_found_and_keep_their_spelling():
    _, b = clusters()

    assert b.get("connect_timeout").seconds == 1.0
    assert b.get("connect_timeout").path[-1] == "connectTimeout"


def test_missing_value_has_the_line_of_its_parent():
    a, _ = clusters()
    missing = a.get("health_checks", "interval")

    assert not missing
    assert missing.line == 3
    assert missing.key == "static_resources.clusters[0].health_checks.interval"
    assert list(missing.items()) == list(missing.entries()) == []
    assert (missing.text, missing.flag, missing.number, missing.seconds) == ("", False, None, None)


def test_json_indented_by_tabs_is_read_with_its_lines():
    node = parse_node('{\n\t"static_resources": {\n\t\t"clusters": [{"name": "a"}]}}', "f.json")

    assert node.get("static_resources", "clusters").line == 3


def test_anchors_and_merged_keys_are_followed():
    a, _ = clusters(
        "x: &defaults {connect_timeout: 2s}\n"
        "static_resources:\n  clusters:\n  - {<<: *defaults, name: a}\n  - *defaults\n"
    )

    assert a.get("connect_timeout").seconds == 2.0
    assert a.get("connect_timeout").line == 4


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: [", "f.yaml:2"),
        ("a: 1\na: 2\n", "f.yaml:2"),
        ("a: *nobody\n", "f.yaml:1"),
        ("a: &a {b: *a}\n", "f.yaml:1"),
        ("[" * 1000, "f.yaml"),
        ("a: \x00", "f.yaml"),
    ],
)
def test_broken_file_is_refused_with_its_line(text, place):
    with pytest.raises(ConfigError, match="is not valid YAML") as refused:
        parse_node(text, "f.yaml")

    assert str(refused.value).startswith(f"{place}: ")


@given(st.text(max_size=60))
def test_any_text_is_a_node_or_a_config_error(text):
    try:
        node = parse_node(text, "f.yaml")
    except ConfigError:
        return
    assert isinstance(node, Node)
    assert isinstance(node.get("static_resources", "clusters").text, str)
