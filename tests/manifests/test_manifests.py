"""Every manifest we ship: valid, complete, and fitting the command it runs."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from pathlib import Path

import click
import kubernetes_validate
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from ruamel.yaml import YAML

from kustomization import FILE, documents, files, render, rights_of
from lodestar_extproc.commands.configuration import watched_by
from lodestar_extproc.commands.on_demand import loaded
from lodestar_extproc.config import InferencePoolRef, ServiceRef
from lodestar_extproc.config.picker import read_settings_file
from lodestar_extproc.config.share import parse_share
from lodestar_extproc.extproc.grpc_health import _SERVICES

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "deploy" / "kubernetes", ROOT / "envoy" / "istio", ROOT / "envoy" / "kubernetes")
KUSTOMIZATIONS = sorted(path.parent for folder in FOLDERS for path in folder.rglob(FILE))
# What one applies; the others are parts of these.
WHOLE = [
    ROOT / "deploy" / "kubernetes" / "inference-pool",
    ROOT / "envoy" / "istio" / "envoy-filter",
    ROOT / "envoy" / "istio" / "inference-pool",
    ROOT / "envoy" / "kubernetes",
]
VERSIONS = ("1.30", "1.33", "1.37")
SCHEMAS = {
    path.name: YAML(typ="safe").load(path)
    for path in (Path(__file__).parent / "schemas").glob("*.yaml")
}
OWN = {
    "inference.networking.k8s.io": "inference_pool.yaml",
    "gateway.networking.k8s.io": "gateway_api.yaml",
    "networking.istio.io": "istio.yaml",
    "kustomize.config.k8s.io": "kustomize.yaml",
    "monitoring.coreos.com": "monitoring.yaml",
}


def short(path):
    return str(path.relative_to(ROOT))


def validator(name):
    resources = [(n, Resource(s, DRAFT202012)) for n, s in SCHEMAS.items()]
    return Draft202012Validator(SCHEMAS[name], registry=Registry().with_resources(resources))


def faults_of(found) -> list[str]:
    """What is wrong with one object, by the schema of its kind."""
    own = OWN.get(found["apiVersion"].partition("/")[0])
    if own is not None:
        return [error.message for error in validator(own).iter_errors(found)]
    try:
        for version in VERSIONS:
            kubernetes_validate.validate(found, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


def plain(found):
    """As JSON has it: no YAML types, no shared parts."""
    return json.loads(json.dumps(found))


# -- each file ---


def test_every_file_belongs_to_a_kustomization():
    reached = {path for folder in KUSTOMIZATIONS for path in files(folder)}
    there = {path for folder in FOLDERS for path in folder.rglob("*") if path.is_file()}

    assert there == reached


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=short)
def test_kustomization_is_valid(folder):
    (kustomization,) = documents(folder / FILE)

    assert faults_of(plain(kustomization)) == []


@pytest.mark.parametrize("folder", WHOLE, ids=short)
def test_every_object_is_valid_and_named_once(folder):
    objects = [plain(found) for found in render(folder)]

    assert {str(o["kind"]): faults_of(o) for o in objects if faults_of(o)} == {}
    names = [(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(set(names)) == len(names)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.parametrize("folder", WHOLE, ids=short)
def test_kubectl_renders_the_same(folder):
    done = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr

    def key(found):
        return found["kind"], found["metadata"]["name"]

    theirs = sorted((plain(o) for o in YAML(typ="safe").load_all(done.stdout)), key=key)
    assert theirs == sorted((plain(o) for o in render(folder)), key=key)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("spec.targetPorts", []),
        ("spec.targetPorts", [{"number": 0}]),
        ("spec.targetPorts", [{"number": n} for n in range(1, 10)]),
        ("spec.targetPorts", [{"number": 8000, "role": "Debug"}]),
        ("spec.selector", {}),
        ("spec.selector", {"matchLabels": {}}),
        ("spec.selector", {"app": "vllm"}),
        ("spec.endpointPickerRef", {"name": "lodestar"}),
        ("spec.endpointPickerRef.failureMode", "Open"),
        ("spec.extensionRef", {"name": "lodestar"}),
        ("apiVersion", "inference.networking.x-k8s.io/v1alpha2"),
    ],
)
def test_schema_of_a_pool_refuses_what_the_api_server_would(path, change):
    (pool,) = documents(ROOT / "envoy/istio/inference-pool/inference-pool.yaml")
    assert faults_of(pool) == []

    *way, last = path.split(".")
    place = pool = copy.deepcopy(pool)
    for step in way:
        place = place[step]
    place[last] = change
    assert validator("inference_pool.yaml").is_valid(pool) is False


@pytest.mark.parametrize("file", ["envoy-filter/envoy-filter.yaml", "envoy-filter/route.yaml"])
def test_schemas_of_istio_refuse_a_field_that_is_not_there(file):
    for found in documents(ROOT / "envoy" / "istio" / file):
        assert faults_of(found) == []
        found["spec"]["surprise"] = True
        assert faults_of(found)


def test_kubernetes_schemas_refuse_a_field_that_is_not_there():
    for found in map(plain, documents(ROOT / "envoy/kubernetes/envoy.yaml")):
        found["spec"]["surprise"] = True
        assert faults_of(found)


# -- what they say to each other ---


def one(objects, kind, name="lodestar"):
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def container_of(deployment):
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container


def options(objects):
    """The options of `serve` as the command itself reads the container's arguments."""
    command, *arguments = container_of(one(objects, "Deployment"))["args"]
    serve = loaded(command)
    with click.Context(serve):
        return serve.make_context(command, list(arguments)).params


@pytest.mark.parametrize("folder", WHOLE, ids=short)
def test_the_command_takes_the_containers_arguments(folder):
    given = options(render(folder))

    assert [*given["listen"]] == ["[::]:9002"]
    assert [*given["health"]] == ["[::]:9003"]
    assert given["drain"] + given["grace"] < 60 - 10


@pytest.mark.parametrize("folder", WHOLE, ids=short)
def test_what_is_watched_is_what_the_role_allows_and_no_more(folder):
    objects = render(folder)
    given = options(objects)
    watched = watched_by(given["inference_pool"], given["service"], "default")
    (role,) = (o for o in objects if o["kind"] == "Role")

    read = ["get", "list", "watch"]
    if isinstance(watched, InferencePoolRef):
        expected = [
            {
                "apiGroups": [watched.group],
                "resources": ["inferencepools"],
                "resourceNames": [watched.name],
                "verbs": read,
            },
            {"apiGroups": [""], "resources": ["pods"], "verbs": read},
        ]
    else:
        assert watched == ServiceRef("engines", "default", "http")
        expected = [
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read}
        ]
    assert plain(role["rules"]) == expected
    for found in objects:
        if found["kind"] == "ClusterRole":
            assert plain(found["rules"]) == [
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
            ]


@pytest.mark.parametrize("folder", WHOLE, ids=short)
def test_bindings_ports_probes_and_volumes_name_what_is_there(folder):
    objects = render(folder)
    account = one(objects, "ServiceAccount")["metadata"]["name"]
    for binding in (o for o in objects if o["kind"].endswith("RoleBinding")):
        assert [subject["name"] for subject in binding["subjects"]] == [account]
        assert one(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])
    deployment, service = one(objects, "Deployment"), one(objects, "Service")
    pod = deployment["spec"]["template"]
    assert pod["spec"]["serviceAccountName"] == account
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    container = container_of(deployment)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports.keys()
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert container[probe]["grpc"]["port"] == ports["grpc-health"]
        assert container[probe]["grpc"]["service"] in _SERVICES
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    config = next(v for v in pod["spec"]["volumes"] if v["name"] == "config")
    assert one(objects, "ConfigMap", config["configMap"]["name"])


@pytest.mark.parametrize("folder", WHOLE, ids=short)
def test_pods_may_do_nothing_that_they_need_not(folder):
    deployments = [found for found in render(folder) if found["kind"] == "Deployment"]

    assert deployments
    assert {d["metadata"]["name"]: rights_of(d) for d in deployments if rights_of(d)} == {}


def test_a_right_that_is_given_is_found():
    deployment = plain(one(render(WHOLE[0]), "Deployment"))
    spec = deployment["spec"]["template"]["spec"]
    spec["securityContext"] = {}
    spec["containers"][0]["securityContext"] = {"capabilities": {"drop": ["ALL"]}}

    assert [right.split()[0] for right in rights_of(deployment)] == ["be", "make", "gain", "write"]


@pytest.mark.parametrize("folder", WHOLE, ids=short)
def test_files_that_arguments_name_are_mounted_and_can_be_read(folder, tmp_path):
    objects = render(folder)
    given = options(objects)
    mounted = "/etc/lodestar/"
    named = [str(p) for p in (given["settings"], given["envoy_config"]) if p is not None]
    data = one(objects, "ConfigMap")["data"]

    assert [name.removeprefix(mounted) for name in named] == list(data)
    if given["settings"] is not None:
        path = tmp_path / "settings.yaml"
        path.write_text(data["settings.yaml"])
        settings, defaults, _ = read_settings_file(path)
        assert settings.policy == "learned"
        assert settings.checkpoint_path.startswith("/var/lib/lodestar/")
        assert defaults.engine == "vllm"


def test_pool_route_and_destination_rule_meet_at_lodestars_service():
    objects = render(ROOT / "envoy" / "istio" / "inference-pool")
    pool, service = one(objects, "InferencePool", "vllm"), one(objects, "Service")
    picker = pool["spec"]["endpointPickerRef"]

    assert picker["name"] == service["metadata"]["name"]
    assert picker["port"]["number"] in [port["port"] for port in service["spec"]["ports"]]
    assert options(objects)["inference_pool"] == pool["metadata"]["name"]
    rule = one(objects, "DestinationRule")
    assert rule["spec"]["host"] == service["metadata"]["name"]
    assert (rule["spec"]["trafficPolicy"]["tls"]["mode"], options(objects)["tls"]) == (
        "SIMPLE",
        "self-signed",
    )
    route = one(objects, "HTTPRoute", "llm")
    assert one(objects, "Gateway", route["spec"]["parentRefs"][0]["name"])
    ((backend,),) = [rule["backendRefs"] for rule in route["spec"]["rules"]]
    assert (backend["kind"], backend["name"]) == ("InferencePool", pool["metadata"]["name"])


def test_replicas_that_share_reach_the_store_that_comes_with_them():
    found = {
        (each["kind"], each["metadata"]["name"]): each
        for each in render(
            ROOT / "deploy" / "kubernetes" / "shared", render(ROOT / "envoy" / "kubernetes")
        )
    }
    ours, store = found["Deployment", "lodestar"], found["Deployment", "lodestar-store"]
    env = {
        e["name"]: e.get("value") for e in ours["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    (target,) = parse_share(env["LODESTAR_SHARE_URL"]).hosts
    service = found["Service", "lodestar-store"]["spec"]
    policy = found["NetworkPolicy", "lodestar-store"]["spec"]

    assert ours["spec"]["replicas"] == 2
    assert target == ("lodestar-store", service["ports"][0]["port"])
    labels = store["spec"]["template"]["metadata"]["labels"]
    assert service["selector"] == labels == policy["podSelector"]["matchLabels"]
    (let_in,) = policy["ingress"][0]["from"]
    assert let_in["podSelector"]["matchLabels"] == ours["spec"]["selector"]["matchLabels"]
