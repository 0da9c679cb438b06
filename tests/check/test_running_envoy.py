"""The doctor on a running Envoy: by its admin page, and by a config dump of whatever proxy."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from builders import DEFAULT_ENVOY_FILE
from config_dumps import in_camel_case, istio_dump
from document_places import places_in
from dynamic_envoy import by_discovery
from envoy_process import EnvoyProcess, envoy_config
from istio_gateway import ENGINES, gateway_config, patched
from kustomization import documents
from lodestar_extproc.check import check, check_running
from lodestar_extproc.check.as_json import as_json
from lodestar_extproc.commands.cli import app
from lodestar_extproc.config import NotEnvoyConfig
from ports import a_port
from trapped_files import action, decide, host, options, pool

ISTIO = DEFAULT_ENVOY_FILE.parent / "istio" / "envoy-filter" / "envoy-filter.yaml"


def the_config(*edits):
    config = envoy_config(
        "envoy.yaml", extproc_port=a_port(), engines=["127.0.0.1:1", "127.0.0.1:2"]
    )
    for edit in edits:
        edit(config)
    return config


def trapped(config):
    del action(config)["timeout"], decide(config)["message_timeout"]
    options(pool(config))["common_http_protocol_options"]["idle_timeout"] = "60s"


def places(report):
    return {finding.rule: (str(finding.origin), finding.key) for finding in report.findings}


def a_dump(folder: Path, document) -> Path:
    path = folder / "dump.json"
    path.write_text(json.dumps(document))
    return path


# -- the real Envoy ----------------------------------------------------------------------------


@pytest.mark.long
async def test_what_envoy_runs_is_looked_at_as_the_file_would_be(tmp_path):
    async with EnvoyProcess(the_config(), tmp_path) as envoy:
        report = check_running(f"127.0.0.1:{envoy.admin_port}")

    assert (report.findings, report.unseen) == ((), ())
    assert report.envoy_version.count(".") == 2
    # Neither Lodestar nor an engine is there.
    assert [(str(hint.origin), hint.rule) for hint in report.hints] == [
        ("cluster lodestar (static)", "unreachable"),
        ("cluster engines (static)", "unreachable"),
    ]


@pytest.mark.long
async def test_traps_are_told_by_resource_wherever_it_came_from(tmp_path):
    config = by_discovery(the_config(trapped), tmp_path)
    async with EnvoyProcess(config, tmp_path) as envoy:
        url = f"http://127.0.0.1:{envoy.admin_port}"
        report = check_running(url)
        shown = CliRunner().invoke(app, ["check", "--envoy-admin", url])
        without_eds = a_dump(tmp_path, json.loads(await envoy.admin("/config_dump")))

    assert places(report) == {
        "answer_timers": (
            f"route table openai (RDS from {tmp_path}/rds.json)",
            "virtual_hosts[0].routes[0].route.timeout",
        ),
        "message_timeout": (
            f"listener openai (LDS from {tmp_path}/lds.json)",
            "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.message_timeout",
        ),
        "idle_timeout": (
            f"cluster engines (CDS from {tmp_path}/cds.json)",
            f"typed_extension_protocol_options.{OPTIONS}.common_http_protocol_options.idle_timeout",
        ),
    }
    assert report.unseen == ()
    assert shown.exit_code == 1
    assert f"route table openai (RDS from {tmp_path}/rds.json): virtual_hosts[0]" in shown.stdout
    assert "set, under virtual_hosts[0].routes[0].route of route table openai" in shown.stdout
    (unseen,) = check(without_eds).unseen
    assert "include_eds" in unseen.what


OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@pytest.mark.long
async def test_numbers_that_envoy_took_for_text_are_settings(tmp_path):
    process = EnvoyProcess(the_config(), tmp_path)
    # In YAML, Envoy takes 0.2 for text.
    text = json.dumps(the_config(), indent=1).replace(
        '"scrape_interval_s": 0.2', '"scrape_interval_s": "0.2"'
    )
    process.config_file.write_text(text)
    async with process as envoy:
        assert check_running(f"127.0.0.1:{envoy.admin_port}").findings == ()


def test_nobody_at_the_address_is_said(tmp_path):
    for address in (f"127.0.0.1:{a_port()}", "ftp://x", ""):
        with pytest.raises(NotEnvoyConfig, match=r"does not answer|is not the address"):
            check_running(address)
    assert (
        CliRunner().invoke(app, ["check", "--envoy-admin", f"127.0.0.1:{a_port()}"]).exit_code == 2
    )


# -- Istio's -----------------------------------------------------------------------------------


def istio_config(*edits):
    (envoy_filter,) = documents(ISTIO)
    config = patched(gateway_config(["10.0.0.7:8000", "10.0.0.8:8000"]), envoy_filter)
    engines = next(c for c in config["static_resources"]["clusters"] if c["name"] == ENGINES)
    # What the DestinationRule beside it says.
    kind = f"type.googleapis.com/{OPTIONS}"
    engines["typed_extension_protocol_options"] = {
        OPTIONS: {"@type": kind, "common_http_protocol_options": {"idle_timeout": "4s"}}
    }
    limits = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"), 4294967295
    )
    engines["circuit_breakers"] = {"thresholds": [limits]}
    for edit in edits:
        edit(config, engines)
    return config


def _balances_itself(_, engines):
    del engines["load_balancing_policy"]


def _short(config, _):
    (llm, _) = host(config)["routes"]
    llm["route"]["timeout"] = "15s"


@pytest.mark.parametrize("written", [lambda dump: dump, in_camel_case], ids=["snake", "camel"])
def test_an_istio_gateway_with_our_filter_has_no_trap(tmp_path, written):
    report = check(a_dump(tmp_path, written(istio_dump(istio_config()))))

    assert (report.findings, report.unseen) == ((), ())
    assert report.envoy_version == "1.38.1"


def test_traps_of_an_istio_gateway_are_told_by_its_resources(tmp_path):
    report = check(a_dump(tmp_path, istio_dump(istio_config(_short))))

    assert places(report) == {
        "answer_timers": (
            "route table http.8080 (RDS by ADS)",
            "virtual_hosts[0].routes[0].route.timeout",
        )
    }
    (finding,) = as_json(report)["findings"]
    assert finding["resource"] == {
        "kind": "route table",
        "name": "http.8080",
        "source": "RDS by ADS",
    }
    assert finding["cure"][0]["path"] == "/virtual_hosts/0/routes/0/route/timeout"


def test_a_gateway_whose_cluster_does_not_take_the_choice_has_a_trap(tmp_path):
    report = check(a_dump(tmp_path, istio_dump(istio_config(_balances_itself))))

    assert places(report)["override_host"][0] == f"cluster {ENGINES} (CDS by ADS)"


def test_a_dump_in_a_wrapper_is_found_and_two_are_not_guessed_between(tmp_path):
    dump = istio_dump(istio_config())
    wrapped = {"ns": {"pod-1": {"configDump": dump}}}

    assert check(a_dump(tmp_path, wrapped)).findings == ()
    with pytest.raises(NotEnvoyConfig, match="dumps of 2 Envoys"):
        check(a_dump(tmp_path, {"ns": {"pod-1": dump, "pod-2": dump}}))


def test_a_dump_without_a_section_says_what_is_missing(tmp_path):
    dump = istio_dump(istio_config())
    dump["configs"] = [c for c in dump["configs"] if "RoutesConfigDump" not in c["@type"]]

    whats = [part.what for part in check(a_dump(tmp_path, dump)).unseen]

    assert "the dump has no RoutesConfigDump: ask for the whole /config_dump" in whats
    assert "the route configurations of xDS" in whats


def test_a_refused_update_is_a_trap(tmp_path):
    dump = istio_dump(istio_config())
    listener = dump["configs"][3]["dynamic_listeners"][0]
    listener["error_state"] = {"details": "Proto constraint validation failed"}

    (finding,) = check(a_dump(tmp_path, dump)).findings
    assert (finding.rule, str(finding.origin)) == (
        "refused_update",
        "listener 0.0.0.0_8080 (LDS by ADS)",
    )


def test_a_filter_by_ecds_is_looked_at(tmp_path):
    dump = istio_dump(istio_config())
    sections = {section["@type"].rpartition(".")[2]: section for section in dump["configs"]}
    listener = sections["ListenersConfigDump"]["dynamic_listeners"][0]["active_state"]["listener"]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    entry = next(f for f in filters if f["name"] == "lodestar.decide")
    config = entry.pop("typed_config")
    entry["config_discovery"] = {"config_source": {"ads": {}}, "type_urls": [config["@type"]]}
    short = copy.deepcopy(config) | {"message_timeout": "0.1s"}
    extension = {
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "lodestar.decide",
        "typed_config": short,
    }
    ecds = {"@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump"}
    dump["configs"].append({**ecds, "ecds_filters": [{"ecds_filter": extension}]})

    report = check(a_dump(tmp_path, dump))

    assert places(report) == {
        "message_timeout": ("filter lodestar.decide (ECDS)", "message_timeout")
    }


JUNK = (None, "", "x", 0, -1, True, [], {}, [None], {"x": None}, [[1]], {"@type": 5})


DUMP = istio_dump(istio_config())


@settings(max_examples=30)
@given(place=st.sampled_from([*places_in(DUMP)]), junk=st.sampled_from(JUNK))
def test_any_value_anywhere_in_a_dump_gets_a_defined_answer(place, junk, tmp_path_factory):
    document = copy.deepcopy(DUMP)
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = junk

    try:
        report = check(a_dump(tmp_path_factory.getbasetemp(), document))
    except NotEnvoyConfig:
        return
    json.dumps(as_json(report))
