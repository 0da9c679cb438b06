import copy
import json
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from builders import DEFAULT_ENVOY_FILE
from json_patch import applied
from lodestar_extproc.check import Report, check, find_envoy
from lodestar_extproc.check.doctor import examine
from lodestar_extproc.check.rules import RULES
from lodestar_extproc.commands.check import check as command
from lodestar_extproc.config import NotEnvoyConfig
from lodestar_extproc.config.node import Node
from lodestar_extproc.config.resources import read_resources
from lodestar_extproc.config.schema import BOOTSTRAP

HERE = Path(__file__).parent
CLEAN = HERE / "clean.yaml"
BAD = sorted((HERE / "bad").glob("*.yaml"))
NAMES = [path.stem for path in BAD]
SHIPPED = sorted(
    path
    for path in DEFAULT_ENVOY_FILE.parent.rglob("*.yaml")
    if "static_resources:" in path.read_text()
)


def rules_found(report: Report) -> list[str]:
    return [finding.rule for finding in report.findings]


def cured(path: Path, folder: Path, finding) -> Path:
    """A copy of the file at *path* with the cure of *finding*, as JSON."""
    operations = json.loads(json.dumps([patch.operation for patch in finding.cure]))
    document = applied(YAML(typ="safe").load(path), operations)
    healthy = folder / "cured.json"
    healthy.write_text(json.dumps(document))
    return healthy


def invoke(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_every_rule_has_a_bad_file_and_every_bad_file_a_rule():
    assert sorted(NAMES) == sorted([rule.__name__ for rule in RULES] + ["settings", "envoy"])


@pytest.mark.parametrize("path", [CLEAN, *SHIPPED], ids=lambda path: path.name)
def test_good_file_has_no_trap(path, monkeypatch):
    monkeypatch.chdir(DEFAULT_ENVOY_FILE.parents[1])

    report = check(path, envoy=find_envoy())

    # These two are without the log on purpose.
    without_log = path.name in ("observer_only.yaml", "full_duplex.yaml")
    assert rules_found(report) == (["access_log"] if without_log else [])
    assert report.envoy_version is not None


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_file_has_exactly_its_trap_and_envoy_does_not_see_it(path):
    report = check(path, envoy=find_envoy())

    # Without HTTP/2 it is the gRPC health check that Envoy refuses.
    envoy_sees = ["envoy"] if path.stem == "service_http2" else []
    assert rules_found(report) == [*envoy_sees, path.stem]
    assert all(finding.problem for finding in report.findings)
    assert path.stem == "envoy" or report.findings[-1].line > 1


@pytest.mark.parametrize(
    "path", [p for p in BAD if p.stem not in ("envoy", "settings")], ids=lambda path: path.stem
)
def test_cure_makes_the_file_clean(path, tmp_path):
    (finding,) = check(path).findings

    healthy = check(cured(path, tmp_path, finding), envoy=find_envoy())

    assert healthy.findings == ()


def test_gateway_without_any_of_it_is_cured_step_by_step(tmp_path):
    path = HERE / "bare_gateway.yaml"
    met = set()
    for _ in range(2 * len(RULES)):
        findings = check(path).findings
        if not findings:
            break
        met |= {finding.rule for finding in findings}
        path = cured(path, tmp_path, findings[0])

    assert check(path, envoy=find_envoy()).findings == ()
    assert len(met) >= 12


def test_camel_case_file_is_judged_alike(tmp_path):
    text = (HERE / "bad" / "retry_on_reset.yaml").read_text()
    for snake, camel in (
        ("retry_on", "retryOn"),
        ("route_config", "routeConfig"),
        ("retry_policy", "retryPolicy"),
    ):
        text = text.replace(f"{snake}:", f"{camel}:")
    path = tmp_path / "camel.yaml"
    path.write_text(text)

    (finding,) = check(path).findings
    assert finding.rule == "retry_on_reset"
    assert check(cured(path, tmp_path, finding)).findings == ()


def test_two_pools_need_to_be_told_apart(tmp_path):
    text = (HERE / "bad" / "route_pool.yaml").read_text().replace("x-lodestar-pool", "x-other")
    path = tmp_path / "two.yaml"
    path.write_text(text)

    (finding,) = check(path).findings
    assert (finding.rule, finding.key.rpartition(".")[2]) == ("route_pool", "request_attributes")
    assert check(cured(path, tmp_path, finding)).findings == ()


def test_shadow_needs_no_override_host(tmp_path):
    text = (HERE / "bad" / "override_host.yaml").read_text()
    path = tmp_path / "shadow.yaml"
    path.write_text(text.replace("{policy: learned}", "{policy: learned, shadow: true}"))

    assert check(path).findings == ()


def test_header_is_no_trap_where_clients_cannot_send_it(tmp_path):
    text = (HERE / "bad" / "header_override.yaml").read_text()
    removed = (
        "          early_header_mutation_extensions:\n"
        "          - name: strip\n"
        "            typed_config:\n"
        '              "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation\n'
        "              mutations: [{remove: x-gateway-destination-endpoint}]\n"
        "          stat_prefix: openai\n"
    )
    path = tmp_path / "header.yaml"
    path.write_text(text.replace("          stat_prefix: openai\n", removed))

    assert check(path, envoy=find_envoy()).findings == ()


def test_bad_eds_file_is_found(tmp_path):
    variant = (DEFAULT_ENVOY_FILE.parent / "variants" / "eds.yaml").read_text()
    path = tmp_path / "eds.yaml"
    path.write_text(variant.replace("envoy/variants/", "elsewhere/"))
    (tmp_path / "eds_endpoints.yaml").write_text("resources: []\n")

    (finding,) = check(path).findings
    assert finding.rule == "settings"
    assert "eds_endpoints.yaml:1: resources: has no assignment" in finding.problem


@pytest.mark.parametrize("text", ["", "a: 1", "[", "# only a comment"])
def test_other_files_are_not_judged(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)

    with pytest.raises(NotEnvoyConfig):
        check(path)


def test_command_exits_by_what_it_found(tmp_path):
    other = tmp_path / "x.yaml"
    other.write_text("a: 1")

    assert invoke(CLEAN).exit_code == 0
    assert invoke(HERE / "bad" / "route_timeout.yaml").exit_code == 1
    assert invoke(other).exit_code == invoke(tmp_path / "nowhere.yaml").exit_code == 2


def test_command_shows_line_reason_and_yaml_to_write():
    result = invoke("--no-envoy", HERE / "bad" / "route_timeout.yaml")

    assert "bad/route_timeout.yaml:25  route_timeout" in result.stdout
    assert "longer than 15 s is cut off" in result.stdout
    assert "under static_resources.listeners[0].filter_chains[0]" in result.stdout
    assert "    timeout: 0s\n" in result.stdout
    assert "1 trap, not validated by Envoy itself" in result.stdout


def test_command_speaks_json(tmp_path):
    report = json.loads(invoke("--json", HERE / "bad" / "per_try_idle_timeout.yaml").stdout)
    failed = json.loads(invoke("--json", tmp_path / "nowhere.yaml").stdout)

    (finding,) = report["findings"]
    assert finding["rule"] == "per_try_idle_timeout"
    assert finding["cure"][0]["op"] == "remove"
    assert finding["cure"][0]["path"].startswith("/static_resources/listeners/0/")
    assert report["envoy_version"].count(".") == 2
    assert "cannot be read" in failed["error"]


JUNK = (None, "", "x", 0, -1, 1e300, True, [], {}, [None], ["x"], {"x": None}, [[1]], {"@type": 5})


def places_in(value, path=()):
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield (*path, key)
        yield from places_in(child, (*path, key))


def resources_of(document):
    root = Node(document, "envoy.yaml", kind=BOOTSTRAP)
    return read_resources(root, DEFAULT_ENVOY_FILE)


DOCUMENT = YAML(typ="safe").load(DEFAULT_ENVOY_FILE)
PLACES = tuple(places_in(DOCUMENT))


@given(place=st.sampled_from(PLACES), junk=st.sampled_from(JUNK))
def test_any_value_anywhere_gets_a_defined_answer(place, junk):
    document = copy.deepcopy(DOCUMENT)
    *above, last = place
    parent = document
    for key in above:
        parent = parent[key]
    parent[last] = junk

    findings = examine(resources_of(document), DEFAULT_ENVOY_FILE)

    json.dumps(Report(DEFAULT_ENVOY_FILE, tuple(findings)).as_json())
