import fnmatch
import json
import re
import shutil
import subprocess

import pytest
from ruamel.yaml import YAML

from compose_file import (
    OUR_IMAGES,
    ROOT,
    Service,
    dashboard,
    dashboard_queries,
    dockerfile,
    entrypoint,
    services,
    stages,
)
from lodestar_extproc.config.share import parse_share
from lodestar_extproc.metrics.docs import all_metrics
from lodestar_extproc.service.replicas import URL_VARIABLE

PROMETHEUS = ROOT / "deploy" / "prometheus"
needs_compose = pytest.mark.skipif(
    shutil.which("docker-compose") is None,
    reason="needs docker-compose: make tools, or apt-get install docker-compose",
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="needs promtool: make tools, or apt-get install prometheus",
)


def run(*command: str, **settings) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT, **settings
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_compose
def test_docker_compose_accepts_the_file():
    accepted = YAML(typ="safe").load(run("docker-compose", "config"))

    assert accepted["services"].keys() == services().keys()


@pytest.mark.parametrize("service", services().values(), ids=lambda s: s.name)
def test_what_is_published_is_published_to_this_machine_only(service: Service):
    assert all(port.startswith("127.0.0.1:") for port in service.ports)


@pytest.mark.parametrize("service", services().values(), ids=lambda s: s.name)
def test_what_is_mounted_is_there(service: Service):
    for source, target in service.volumes:
        assert not source.startswith(".") or (ROOT / source).exists()
        assert target.startswith("/")


@pytest.mark.parametrize("service", services().values(), ids=lambda s: s.name)
def test_images_of_others_are_of_one_version(service: Service):
    assert service.image in OUR_IMAGES or re.search(r":v?\d+\.\d+\.\d+$", service.image)


@pytest.mark.parametrize("file", ["docker-compose.yaml", "docker-compose.replicas.yaml"])
def test_our_services_write_to_memory_alone_and_gain_no_rights(file):
    document = YAML(typ="safe").load(ROOT / file)
    ours = [s for s in document["services"].values() if s.get("image") in OUR_IMAGES]

    assert ours
    for service in ours:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"][0] == "/tmp"
        assert "privileged" not in service


def test_names_of_services_are_the_ones_that_files_use():
    text = (ROOT / "envoy" / "compose.yaml").read_text() + (
        PROMETHEUS / "prometheus.yaml"
    ).read_text()
    named = set(re.findall(r"address: ([a-z][\w-]+)", text)) | set(
        re.findall(r"\"([a-z][\w-]+):\d+\"", text)
    )

    engines = {name for name in services() if name.startswith("engine-")}
    assert named == engines | {"lodestar"}
    assert len(engines) == 4


def test_the_image_is_built_of_files_that_are_sent_to_the_builder():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = [line for line in dockerfile("COPY") if not line.startswith("--from")]

    assert ignored[1] == "*"
    for source in {word for line in copied for word in line.split()[:-1]}:
        assert (ROOT / source).exists()
        assert any(fnmatch.fnmatch(source, pattern) for pattern in sent)


def test_the_images_run_our_command_as_nobody_in_particular():
    assert entrypoint() == ("lodestar-extproc",)
    (user,) = dockerfile("USER")
    # Kubernetes cannot tell of a name that it is not root's.
    assert int(user) > 0
    assert any(f"--uid {user}" in line for line in dockerfile("RUN"))
    assert stages()["serve"] == stages()["simulator"] == "base"


def test_what_is_built_without_a_target_is_the_service_alone():
    assert list(stages())[-1] == "serve"


@pytest.mark.parametrize("service", services().values(), ids=lambda s: s.name)
def test_only_what_simulates_runs_the_image_that_can(service: Service):
    if service.image in OUR_IMAGES:
        serves = service.command[0] == "serve"
        assert service.target == ("serve" if serves else "simulator")
        assert service.image.endswith("-simulator") != serves


def test_our_images_install_what_the_lock_files_say_and_nothing_else():
    installs = [line for line in dockerfile("RUN") if "pip" in line and "wheel " not in line]
    locked = re.findall(r"--requirement (\S+)", " ".join(installs))

    assert set(locked) == {f"requirements/{name}.lock" for name in ("build", "serve", "simulator")}
    for command in re.findall(r"install (.*?)(?:&&|$)", " ".join(installs)):
        assert command.startswith(("--require-hashes", "--no-deps"))


def test_the_service_image_says_whether_it_lives_and_what_it_is():
    (check,) = dockerfile("HEALTHCHECK")
    (labels,) = dockerfile("LABEL")

    assert "/healthz" in check
    for label in ("source", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{label}=" in labels


@needs_promtool
def test_prometheus_accepts_its_configuration_and_rules():
    assert "SUCCESS" in run("promtool", "check", "config", str(PROMETHEUS / "prometheus.yaml"))


@needs_promtool
def test_every_alert_fires_when_it_should():
    run("promtool", "test", "rules", str(PROMETHEUS / "rules_test.yaml"))

    rules = YAML(typ="safe").load(PROMETHEUS / "rules.yaml")["groups"][0]["rules"]
    tested = (PROMETHEUS / "rules_test.yaml").read_text()
    for rule in rules:
        assert re.search(rf"alertname: {rule['alert']}\n\s+exp_alerts", tested), rule["alert"]


def test_alerts_and_dashboard_ask_for_metrics_that_there_are():
    known = {metric.name for metric in all_metrics()}
    rules = (PROMETHEUS / "rules.yaml").read_text()
    asked = "\n".join((rules, *(query for _, query in dashboard_queries())))

    used = set(re.findall(r"\blodestar_\w+", asked))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} - known == set()


def test_panels_do_not_overlap():
    taken = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_grafana_finds_the_dashboard_and_its_source():
    grafana = services()["grafana"]
    mounts = {target: source for source, target in grafana.volumes}
    provisioning = ROOT / mounts["/etc/grafana/provisioning"]
    [provider] = YAML(typ="safe").load(provisioning / "dashboards/lodestar.yaml")["providers"]
    [source] = YAML(typ="safe").load(provisioning / "datasources/prometheus.yaml")["datasources"]

    assert (ROOT / mounts[provider["options"]["path"]] / "lodestar.json").exists()
    assert source["url"] == "http://prometheus:9090"
    uids = set(re.findall(r'"uid": "([^"]+)"', json.dumps(dashboard())))
    assert uids == {"${datasource}", dashboard()["uid"]}
    (variable,) = [v for v in dashboard()["templating"]["list"] if v["name"] == "datasource"]
    assert (variable["type"], variable["query"]) == ("datasource", source["type"])


def test_every_alert_has_a_runbook_that_is_there():
    rules = YAML(typ="safe").load(PROMETHEUS / "rules.yaml")["groups"][0]["rules"]
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE)
    for rule in rules:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/runbooks.md")
        assert anchor == rule["alert"].lower()
    assert headings == [rule["alert"] for rule in rules]


@needs_compose
def test_with_the_file_of_replicas_two_share_a_name_and_a_store():
    files = ("-f", "docker-compose.yaml", "-f", "docker-compose.replicas.yaml")
    whole = YAML(typ="safe").load(run("docker-compose", *files, "config"))["services"]
    first, second = whole["lodestar"], whole["lodestar-2"]

    assert whole.keys() == {*services(), "redis", "lodestar-2"}
    assert second["networks"]["default"]["aliases"] == ["lodestar"]
    assert first["environment"] == second["environment"]
    assert parse_share(first["environment"]["LODESTAR_SHARE_URL"]).hosts == (("redis", 6379),)
    assert URL_VARIABLE in first["environment"]
    assert first["command"] == second["command"]
    assert set(first["depends_on"]) >= {"redis", "engine-h100"}
