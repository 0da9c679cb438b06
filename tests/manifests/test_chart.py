"""The chart, rendered by helm in every combination that matters, is what the manifests are."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess

import click
import pytest
from ruamel.yaml import YAML
from test_manifests import ROOT, container_of, faults_of, one, plain

from envoy_process import ENVOY_BINARY
from kustomization import rights_of
from lodestar_extproc import __version__
from lodestar_extproc.commands.on_demand import loaded
from lodestar_extproc.config import read_envoy_config
from lodestar_extproc.config.picker import read_settings_file
from lodestar_extproc.extproc.grpc_health import _SERVICES

CHART = ROOT / "deploy" / "helm" / "lodestar"
HELM = shutil.which("helm") or shutil.which(ROOT / ".tools" / "bin" / "helm")
NAME = "demo-lodestar"
MODES = ("inference-pool", "own-envoy")
PARTS = ("persistence", "podDisruptionBudget", "networkPolicy", "serviceMonitor", "prometheusRule")
KINDS = {
    "persistence": "PersistentVolumeClaim",
    "podDisruptionBudget": "PodDisruptionBudget",
    "networkPolicy": "NetworkPolicy",
    "serviceMonitor": "ServiceMonitor",
    "prometheusRule": "PrometheusRule",
}
needs_helm = pytest.mark.skipif(HELM is None, reason="no helm here (make helm)")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (str(HELM), *arguments), capture_output=True, text=True, timeout=60, check=False
    )


def template(*values: str, release: str = "demo") -> subprocess.CompletedProcess[str]:
    settings = (part for value in values for part in ("--set-json", value))
    return helm("template", release, str(CHART), "--kube-version", "1.33", "-n", "ai", *settings)


def render(mode: str, *values: str, release: str = "demo") -> list[dict]:
    done = template(f'mode="{mode}"', *values, release=release)
    assert done.returncode == 0, done.stderr
    return [plain(o) for o in YAML(typ="safe").load_all(done.stdout) if o]


def options(objects) -> dict:
    """As `serve` itself reads the container's arguments."""
    command, *arguments = container_of(one(objects, "Deployment", NAME))["args"]
    serve = loaded(command)
    with click.Context(serve):
        return serve.make_context(command, list(arguments)).params


@needs_helm
def test_helm_finds_nothing_to_complain_of():
    done = helm("lint", "--strict", str(CHART))

    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@needs_helm
@pytest.mark.parametrize("parts", list(itertools.product((True, False), repeat=len(PARTS))))
@pytest.mark.parametrize("mode", MODES)
def test_every_combination_is_valid_and_has_what_was_asked_for(mode, parts):
    asked = dict(zip(PARTS, parts, strict=True))
    objects = render(mode, *(f"{name}.enabled={json.dumps(on)}" for name, on in asked.items()))

    assert {str(o["kind"]): faults_of(o) for o in objects if faults_of(o)} == {}
    names = [(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(set(names)) == len(names)
    kinds = {o["kind"] for o in objects}
    assert {name: KINDS[name] in kinds for name in PARTS} == asked


@needs_helm
@pytest.mark.parametrize("mode", MODES)
def test_pods_may_do_nothing_that_they_need_not(mode):
    objects = render(mode, *(f"{name}.enabled=true" for name in PARTS))
    deployments = [found for found in objects if found["kind"] == "Deployment"]

    assert deployments
    assert {d["metadata"]["name"]: rights_of(d) for d in deployments if rights_of(d)} == {}


@needs_helm
@pytest.mark.parametrize("mode", MODES)
def test_names_ports_probes_selectors_and_volumes_meet(mode):
    objects = render(mode, *(f"{name}.enabled=true" for name in PARTS))
    deployment, service = one(objects, "Deployment", NAME), one(objects, "Service", NAME)
    pod, container = deployment["spec"]["template"], container_of(deployment)
    labels = pod["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    account = one(objects, "ServiceAccount", NAME)["metadata"]["name"]
    assert pod["spec"]["serviceAccountName"] == account
    for binding in (o for o in objects if o["kind"].endswith("RoleBinding")):
        assert [s["name"] for s in binding["subjects"]] == [account]
        assert one(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])
    for found, selector in [
        (deployment, deployment["spec"]["selector"]["matchLabels"]),
        (service, service["spec"]["selector"]),
        *(
            (o, o["spec"].get("selector", o["spec"].get("podSelector"))["matchLabels"])
            for o in objects
            if o["kind"] in ("PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor")
        ),
    ]:
        assert selector.items() <= labels, found["kind"]
    assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports.keys()
    policy = one(objects, "NetworkPolicy", NAME)
    assert {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]} == ports.keys()
    monitor = one(objects, "ServiceMonitor", NAME)
    assert [e["port"] for e in monitor["spec"]["endpoints"]] == ["metrics"]
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert container[probe]["grpc"]["port"] == ports["grpc-health"]
        assert container[probe]["grpc"]["service"] in _SERVICES
    volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    claim = volumes["learned"]["persistentVolumeClaim"]["claimName"]
    assert one(objects, "PersistentVolumeClaim", claim)


@needs_helm
def test_the_command_takes_the_arguments_of_both_forms(tmp_path):
    picker, own = (options(render(mode, 'logLevel="debug"')) for mode in MODES)

    assert (picker["inference_pool"], picker["tls"]) == ("vllm", "self-signed")
    assert (own["service"], own["tls"]) == (f"{NAME}-engines:http", "off")
    for given in (picker, own):
        assert (given["log_format"], given["log_level"]) == ("json", "debug")
        assert given["drain"] + given["grace"] < 60 - 10


SECRETS = {
    "tls": ("tls.secret", "tls", "/etc/lodestar-tls"),
    "tls-client-ca": ("tls.clientCaSecret", "tls_client_ca", "/etc/lodestar-tls-client-ca/ca.crt"),
    "admin-tls": ("admin.tlsSecret", "admin_tls", "/etc/lodestar-admin-tls"),
    "admin-client-ca": (
        "admin.clientCaSecret",
        "admin_client_ca",
        "/etc/lodestar-admin-client-ca/ca.crt",
    ),
    "admin-token": ("admin.tokenSecret", "admin_token", "/etc/lodestar-admin-token/token"),
}


def allowed(mode: str, asked: set[str]) -> bool:
    tls = asked & {"tls", "tls-client-ca"}
    return not (tls and mode == "own-envoy") and not (
        "admin-client-ca" in asked and "admin-tls" not in asked
    )


@needs_helm
@pytest.mark.parametrize(
    ("mode", "asked"),
    [
        (mode, {n for n, on in zip(SECRETS, chosen, strict=True) if on})
        for mode in MODES
        for chosen in itertools.product((True, False), repeat=len(SECRETS))
        if allowed(mode, {n for n, on in zip(SECRETS, chosen, strict=True) if on})
    ],
)
def test_secrets_are_mounted_where_the_command_reads_them(mode, asked):
    values = [f'{SECRETS[name][0]}="s-{name}"' for name in asked]
    objects = render(mode, *values, "serviceMonitor.enabled=true")
    deployment, given = one(objects, "Deployment", NAME), options(objects)

    assert {str(o["kind"]): faults_of(o) for o in objects if faults_of(o)} == {}
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    mounted = {v["name"]: v["secret"]["secretName"] for v in volumes if "secret" in v}
    assert mounted == {name: f"s-{name}" for name in asked}
    mounts = {m["name"]: m["mountPath"] for m in container_of(deployment)["volumeMounts"]}
    for name in asked:
        _, option, path = SECRETS[name]
        assert str(given[option]) == path
        assert path.startswith(mounts[name])
    (scraped,) = one(objects, "ServiceMonitor", NAME)["spec"]["endpoints"]
    assert (scraped.get("scheme") == "https") == ("admin-tls" in asked)
    assert ("authorization" in scraped) == ("admin-token" in asked)


@needs_helm
@pytest.mark.parametrize("mode", MODES)
def test_spans_aliases_and_host_names_are_asked_for_by_values(mode):
    asked = ("aliasMetrics=true", "tracing.enabled=true", 'admin.hosts=["lodestar.example"]')
    objects = render(mode, *asked)
    given, container = options(objects), container_of(one(objects, "Deployment", NAME))
    environment = {each["name"]: each.get("value") for each in container["env"]}

    assert (given["alias_metrics"], given["tracing"]) == (True, True)
    assert list(given["admin_host"]) == ["lodestar.example"]
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector:4318"
    assert environment["OTEL_TRACES_SAMPLER_ARG"] == "0.01"


@needs_helm
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (('mode="own-envoy"', 'tls.clientCaSecret="x"'), "mode: inference-pool"),
        (('admin.clientCaSecret="x"',), "needs admin.tlsSecret"),
    ],
)
def test_secrets_that_would_do_nothing_are_refused_with_the_reason(values, said):
    done = template(*values)

    assert done.returncode != 0
    assert said in done.stderr


@needs_helm
def test_settings_of_the_values_are_those_that_lodestar_reads(tmp_path):
    values = ('settings={"policy": "lmetric", "ttft_slo_s": 0.5}', "engines.port=9000")
    picker, own = (render(mode, *values) for mode in MODES)
    settings_file, gateway = tmp_path / "settings.yaml", tmp_path / "gateway.yaml"
    settings_file.write_text(one(picker, "ConfigMap", NAME)["data"]["settings.yaml"])
    gateway.write_text(one(own, "ConfigMap", NAME)["data"]["gateway.yaml"])
    settings, *_ = read_settings_file(settings_file)
    config = read_envoy_config(gateway)

    for read in (settings, config.pools[0].settings):
        assert (read.policy, read.ttft_slo_s) == ("lmetric", 0.5)
        assert read.checkpoint_path == "/var/lib/lodestar/learned.checkpoint"
    (member,) = config.pools[0].members
    engines = one(own, "Service", f"{NAME}-engines")
    assert (member.host, member.port) == (engines["metadata"]["name"], 9000)
    assert engines["spec"]["ports"][0]["port"] == 9000
    assert config.extproc_address == f"{NAME}:9002"


@needs_helm
def test_envoy_itself_takes_the_gateways_file(tmp_path):
    gateway = tmp_path / "gateway.yaml"
    gateway.write_text(one(render("own-envoy"), "ConfigMap", NAME)["data"]["gateway.yaml"])
    done = subprocess.run(
        (str(ENVOY_BINARY), "--mode", "validate", "-c", str(gateway)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]


@needs_helm
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('mode="both"', "mode"),
        ("mod=1", "mod"),
        ("replicas=0", "replicas"),
        ("engines.port=70000", "port"),
        ('logFormat="xml"', "logFormat"),
    ],
)
def test_a_value_that_means_nothing_is_refused(value, said):
    done = template(value)

    assert done.returncode != 0
    assert said in done.stderr


@needs_helm
@pytest.mark.parametrize("mode", MODES)
def test_a_store_is_a_setting_and_its_password_the_secrets(mode):
    share = '{"url": "rediss://redis:6379", "username": "router", "passwordSecret": {"name": "p"}}'
    objects = render(mode, f"share={share}", "replicas=2")
    config = one(objects, "ConfigMap", NAME)["data"]
    deployment = one(objects, "Deployment", NAME)
    said = {each["name"]: each for each in container_of(deployment)["env"]}

    assert any("share: rediss://redis:6379" in text for text in config.values())
    assert said["LODESTAR_SHARE_USERNAME"]["value"] == "router"
    assert said["LODESTAR_SHARE_PASSWORD"]["valueFrom"]["secretKeyRef"] == {
        "name": "p",
        "key": "password",
    }
    assert not faults_of(deployment)


@needs_helm
def test_without_a_store_nothing_is_said_of_one():
    for mode in MODES:
        assert "SHARE" not in json.dumps(render(mode))
        assert "share" not in json.dumps(one(render(mode), "ConfigMap", NAME))


@needs_helm
def test_one_checkpoint_for_several_replicas_is_refused_with_the_reason():
    done = template("replicas=2", "persistence.enabled=true")

    assert done.returncode != 0
    assert "a checkpoint holds what one replica has learned" in done.stderr


@needs_helm
@pytest.mark.parametrize("release", ["lodestar", "r" * 53])
def test_a_long_name_and_the_charts_own_make_valid_names(release):
    for mode in MODES:
        for found in render(mode, release=release):
            assert len(found["metadata"]["name"]) <= 63
            assert faults_of(found) == []


def test_the_charts_copies_are_the_originals():
    for copy, original in (
        ("gateway.yaml", "envoy/kubernetes/gateway.yaml"),
        ("rules.yaml", "deploy/prometheus/rules.yaml"),
    ):
        assert (CHART / "files" / copy).read_bytes() == (ROOT / original).read_bytes(), copy


def test_the_chart_runs_the_version_that_it_stands_beside():
    chart = YAML(typ="safe").load(CHART / "Chart.yaml")

    assert chart["appVersion"] == __version__


def test_every_value_has_a_place_in_a_template_and_in_the_schema():
    values = YAML(typ="safe").load(CHART / "values.yaml")
    schema = json.loads((CHART / "values.schema.json").read_text())
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())

    for name, value in values.items():
        keys = (
            [name]
            if not isinstance(value, dict) or name == "settings"
            else [f"{name}.{key}" for key in value]
        )
        for key in keys:
            whole = re.search(rf"\.Values\.{re.escape(name)}\b(?!\.)", templates)
            assert whole or f".Values.{key}" in templates, key
        assert name in schema["properties"], name
