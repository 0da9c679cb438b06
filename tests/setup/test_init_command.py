"""The command `init`: a file for engines, for a gateway that exists, and for Istio."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from asked_engine import VLLM, AskedEngine
from builders import DEFAULT_ENVOY_FILE
from counted_stack import counted_stack
from envoy_process import cluster_of
from istio_gateway import gateway_config, patched
from lodestar_extproc.check import check, find_envoy
from lodestar_extproc.commands.cli import app
from lodestar_extproc.config import read_envoy_config
from lodestar_extproc.setup.engine_address import read_engine_address
from lodestar_extproc.setup.engine_probe import probe_all
from lodestar_extproc.setup.envoy_file import envoy_file, template
from ports import a_port

SHIPPED = DEFAULT_ENVOY_FILE.parent
BARE = Path(__file__).parents[1] / "check" / "bare_gateway.yaml"


def init(*arguments):
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def nobody() -> str:
    return f"127.0.0.1:{a_port()}"


@pytest.mark.parametrize(
    ("name", "shipped"),
    [("envoy.yaml", "envoy.yaml"), ("istio.yaml", "istio/envoy-filter/envoy-filter.yaml")],
)
def test_what_is_in_the_wheel_is_what_is_shipped_beside_it(name, shipped):
    assert template(name) == (SHIPPED / shipped).read_text()


def test_a_file_for_engines_that_do_not_answer_is_written_and_says_so(tmp_path):
    path, first, second = tmp_path / "envoy.yaml", nobody(), nobody()

    result = init(first, second, "-o", path)

    report = check(path, envoy=find_envoy())
    assert (result.exit_code, report.findings, report.validated) == (0, (), True)
    assert [e.address for e in read_envoy_config(path).pool("engines").endpoints] == [first, second]
    assert path.read_text().count("# NOT PROBED: ") == 2
    assert "did not answer, taken for vLLM" in result.stdout
    # Nothing else differs from the shipped file.
    shipped = DEFAULT_ENVOY_FILE.read_text().splitlines()
    lost = [line for line in shipped if line not in path.read_text().splitlines()]
    assert all(re.search(r"Change the addresses|port_value: 800|Optional", line) for line in lost)


async def test_what_engines_say_stands_in_the_file(tmp_path):
    path = tmp_path / "envoy.yaml"
    async with AskedEngine(VLLM) as engine:
        path.write_text(envoy_file(await probe_all([read_engine_address(engine.address)])))

    assert "# vLLM 0.11.0, serves llama-3.1-8b.\n" in path.read_text()
    assert "# Its KV cache holds 65,536 tokens in blocks of 32.\n" in path.read_text()


@pytest.mark.parametrize(
    ("engines", "cluster"),
    [
        (["vllm-0.invalid:8000"], {"type": "STRICT_DNS"}),
        (["[::1]:9"], {"type": "STATIC"}),
        (["https://127.0.0.1:9"], {"transport_socket": {"name": "envoy.transport_sockets.tls"}}),
    ],
)
def test_names_and_tls_make_another_cluster_without_a_trap(tmp_path, engines, cluster):
    path = tmp_path / "envoy.yaml"

    assert init(*engines, "-o", path).exit_code == 0

    report = check(path, envoy=find_envoy())
    assert (report.findings, report.validated) == ((), True)
    written = cluster_of(YAML(typ="safe").load(path), "engines")
    for name, value in cluster.items():
        assert value == written[name] or value.items() <= written[name].items()


def test_a_file_that_is_there_is_not_overwritten_unless_told(tmp_path):
    path = tmp_path / "envoy.yaml"
    path.write_text("mine")

    refused = init(nobody(), "-o", path)
    assert (refused.exit_code, path.read_text()) == (1, "mine")
    assert "--force overwrites it" in refused.stderr

    assert init(nobody(), "-o", path, "--force").exit_code == 0
    assert path.read_text() != "mine"


@pytest.mark.parametrize("engines", [["nowhere"], ["http://x", "https://y"]])
def test_engines_that_make_no_pool_are_refused(tmp_path, engines):
    assert init(*engines, "-o", tmp_path / "x.yaml").exit_code == 2
    assert not (tmp_path / "x.yaml").exists()


# -- a file that exists ------------------------------------------------------------------------

PLAIN = """\
# A gateway of ours.
static_resources:
  listeners:
    - name: web  # the only one
      address: {socket_address: {address: 127.0.0.1, port_value: 18080}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: web
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        # Everything goes there.
                        - {match: {prefix: /}, route: {cluster: engines}}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
    - name: engines
      lb_policy: ROUND_ROBIN
      load_assignment: {cluster_name: engines, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 28001}}}}]}]}
    - name: other
      load_assignment: {cluster_name: other, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 28009}}}}]}]}
"""


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(PLAIN)
    return path


def test_a_gateway_is_added_to_and_keeps_what_it_had(plain):
    result = init("127.0.0.1:28001", "--into", plain, "--yes")

    report = check(plain, envoy=find_envoy())
    assert (result.exit_code, report.findings, report.validated) == (0, (), True)
    assert read_envoy_config(plain).pool("engines") is not None
    after = plain.read_text().splitlines()
    lost = [line for line in PLAIN.splitlines() if line not in after]
    # The route gets its timers in its own line, and Envoy takes one way to balance.
    assert [line.strip()[:9] for line in lost] == ["- {match:", "lb_policy"]
    assert "+      metadata:" in result.stdout


def test_a_file_with_other_line_ends_keeps_them(plain):
    plain.write_bytes(plain.read_bytes().replace(b"\n", b"\r\n"))
    init("127.0.0.1:28001", "--into", plain, "--yes")

    assert read_envoy_config(plain).pool("engines") is not None
    after = plain.read_bytes()
    assert after.count(b"\r\n") == after.count(b"\n")


def test_adding_twice_changes_nothing_more(plain):
    init("127.0.0.1:28001", "--into", plain, "--yes")
    once = plain.read_text()

    assert init("127.0.0.1:28001", "--into", plain, "--yes").exit_code == 0
    assert plain.read_text() == once


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["127.0.0.1:1"], "name the engines' cluster by --cluster, of engines, other"),
        (["127.0.0.1:28001", "127.0.0.1:28009"], "several clusters have an endpoint"),
        (["127.0.0.1:1", "--cluster", "none"], "there is no cluster none"),
    ],
)
def test_it_asks_which_cluster_is_meant(plain, arguments, said):
    result = init(*arguments, "--into", plain, "--yes")

    assert (result.exit_code, plain.read_text()) == (2, PLAIN)
    assert said in result.stderr


def test_the_cluster_can_be_named(plain):
    assert init("10.0.0.7:8000", "--into", plain, "--cluster", "engines", "--yes").exit_code == 0
    assert read_envoy_config(plain).pool("engines") is not None


# -- Istio -------------------------------------------------------------------------------------


def test_an_envoy_filter_has_the_names_it_was_given(tmp_path):
    path = tmp_path / "filter.yaml"
    result = init(
        *("vllm.models:8080", "--istio", "-o", path, "--namespace", "routers"),
        *("--gateway-namespace", "edge", "--gateway-labels", "istio=edge,app=gw"),
        *("--gateway-port", "8443", "--route", "chat"),
    )

    written = YAML(typ="safe").load(path)
    text = path.read_text()
    assert result.exit_code == 0
    assert written["metadata"]["namespace"] == "edge"
    assert written["spec"]["workloadSelector"]["labels"] == {"istio": "edge", "app": "gw"}
    assert "{service: vllm.models.svc.cluster.local, portNumber: 8080}" in text
    assert "address: lodestar.routers.svc.cluster.local" in text
    assert "{vhost: {route: {name: chat}}}" in text
    assert text.count("portNumber: 8443") == 4


def test_an_envoy_filter_as_it_is_by_default_fits_the_gateway(tmp_path):
    path = tmp_path / "filter.yaml"
    assert init("engines:8000", "--istio", "-o", path).exit_code == 0

    config = patched(gateway_config(["10.0.0.7:8000"]), YAML(typ="safe").load(path))
    (tmp_path / "gateway.json").write_text(json.dumps(config))
    assert cluster_of(config, "lodestar")


@pytest.mark.parametrize("engines", [["10.0.0.7:8000"], ["a:1", "b:1"], ["a.b.example.com:80"]])
def test_istio_needs_the_one_service_of_the_engines(tmp_path, engines):
    assert init(*engines, "--istio", "-o", tmp_path / "x.yaml").exit_code == 2


# -- it runs -----------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("into", [False, True], ids=["new", "into"])
async def test_what_it_writes_makes_one_decision_a_request(tmp_path, plain, into):
    new = tmp_path / "envoy.yaml"
    ways = {
        False: (new, (nobody(), nobody(), "-o", new)),
        True: (plain, ("127.0.0.1:28001", "--into", plain, "--yes")),
    }
    path, arguments = ways[into]
    # It has an event loop of its own.
    result = await asyncio.to_thread(init, *arguments)
    assert result.exit_code == 0, result.output

    async with counted_stack(tmp_path) as stack:
        count = await stack.count(YAML(typ="safe").load(path))
    assert count.is_right, count
