"""Everything of docker-compose.yaml but Grafana, run as it says, with the load it sends."""

import math
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from compose_file import dashboard_queries, services
from local_stack import LocalStack, eventually

pytestmark = pytest.mark.timeout(300)
HAS_PROMETHEUS = shutil.which("prometheus") is not None and shutil.which("promtool") is not None
needs_prometheus = pytest.mark.skipif(
    not HAS_PROMETHEUS, reason="needs Prometheus: make tools, or apt-get install prometheus"
)
MAY_BE_ABSENT = ("lodestar_gain_ttft_ratio", "lodestar_shadow_decisions_total")
"""What takes 200 requests, and what only a shadow policy has."""
NOT_RUN = {"grafana"} if HAS_PROMETHEUS else {"grafana", "prometheus"}
N_ENGINES = 4


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    run = [service for name, service in services().items() if name not in NOT_RUN]
    with LocalStack(run, tmp_path_factory.mktemp("compose")) as running:
        yield running


def counted(stack: LocalStack, name: str, label: str) -> dict[str, float]:
    """Values of one of our metrics by *label*."""
    families = text_string_to_metric_families(stack.get("lodestar", 9090, "/metrics"))
    found = [s for family in families for s in family.samples if s.name == name]
    return {sample.labels[label]: sample.value for sample in found}


def ask(stack: LocalStack, query: str) -> list[float]:
    """The values Prometheus answers *query* with now."""
    query = query.replace("$__rate_interval", "30s").replace("$pool", ".*")
    answer = stack.get("prometheus", 9090, "/api/v1/query", query=query)
    assert answer["status"] == "success"
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def known(values: list[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def test_every_service_becomes_healthy_by_its_own_check(stack):
    assert set(stack.healthy) == services().keys() - NOT_RUN


def test_the_load_is_served_by_all_engines_and_nothing_fails(stack):
    eventually(lambda: counted(stack, "lodestar_requests_total", "outcome").get("served", 0) >= 60)
    stack.check_alive()

    ended = counted(stack, "lodestar_requests_total", "outcome")
    assert ended["failed"] == ended["expired"] == 0
    assert len(counted(stack, "lodestar_endpoint_decisions_total", "endpoint")) == N_ENGINES
    assert set(counted(stack, "lodestar_stream_failures_total", "reason").values()) == {0}


def test_the_model_takes_over(stack):
    eventually(lambda: counted(stack, "lodestar_decisions_total", "reason").get("model", 0) >= 20)


def test_all_engines_are_scraped_and_healthy(stack):
    [pool] = stack.get("lodestar", 9090, "/endpoints")["pools"]

    assert {e["address"] for e in pool["endpoints"]} == {
        f"{host}:8000" for name, host in stack.hosts.items() if name.startswith("engine-")
    }
    assert {e["state"] for e in pool["endpoints"]} == {"healthy"}
    assert all(e["running_requests"] is not None for e in pool["endpoints"])


def test_decisions_can_be_explained(stack):
    [newest] = stack.get("lodestar", 9090, "/decisions", limit="1")["decisions"]
    explained = stack.get("lodestar", 9090, f"/explain/{newest['decision_id']}")

    assert newest["chosen"] in explained["explanation"]


@needs_prometheus
def test_our_page_has_no_fault_that_promtool_finds(stack):
    page = stack.get("lodestar", 9090, "/metrics").encode()
    subprocess.run(["promtool", "check", "metrics"], input=page, check=True, capture_output=True)


@needs_prometheus
def test_prometheus_scrapes_everything(stack):
    eventually(lambda: all(ask(stack, "up")) and len(ask(stack, "up")) == 1 + N_ENGINES)


@needs_prometheus
def test_prometheus_evaluates_every_rule_and_nothing_is_down(stack):
    groups = stack.get("prometheus", 9090, "/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert rules
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    for rule in rules:
        ask(stack, rule["query"])
    urgent = [r for r in rules if r["labels"]["severity"] == "page"]
    assert {rule["state"] for rule in urgent} == {"inactive"}


@needs_prometheus
def test_every_query_of_the_dashboard_returns_data(stack):
    missing = [q for q in dashboard_queries() if not any(name in q[1] for name in MAY_BE_ABSENT)]

    def all_answered() -> bool:
        missing[:] = [(title, query) for title, query in missing if not known(ask(stack, query))]
        return not missing

    assert len(missing) > 30
    try:
        eventually(all_answered, deadline_s=90)
    finally:
        assert missing == []


def test_a_bad_change_of_the_configuration_is_counted_and_changes_nothing(stack):
    file = stack.mounted("lodestar", "/etc/envoy/envoy.yaml")
    changed = file.with_suffix(".new")
    changed.write_text(file.read_text().replace("policy: learned", "policy: fastest"))
    changed.replace(file)

    eventually(lambda: counted(stack, "lodestar_config_reloads_total", "result")["refused"] == 1)
    [pool] = stack.get("lodestar", 9090, "/endpoints")["pools"]
    assert pool["policy"] == "learned"


def test_stopping_is_graceful(stack):
    assert stack.stop("lodestar") == 0
