import asyncio
import contextlib
import logging
import re
import socket
from contextlib import aclosing
from dataclasses import replace as replace_in

import pytest

from builders import a_pool, an_eds_file, an_envoy_file
from envoy_files import bootstrap, engines, written
from lodestar_extproc.config import (
    KubernetesSource,
    Member,
    Resolution,
    ServiceRef,
    read_envoy_config,
    read_picker_config,
)
from lodestar_extproc.config.upstream import DnsFamily, DnsLookup
from lodestar_extproc.fleet.discovery import discover, eds, watch_config
from lodestar_extproc.fleet.discovery.config_file import fixed_parts
from lodestar_extproc.fleet.discovery.dns import watch_dns
from lodestar_extproc.fleet.discovery.watched_file import contents
from waiting import until


def addresses(endpoints):
    return [endpoint.address for endpoint in endpoints]


async def following(watch):
    async with asyncio.timeout(60):
        return await anext(watch)


class FakeDns:
    """Answers in turn; each sleep of the watcher is one turn."""

    def __init__(self, **answers):
        self._answers = answers
        self._turn = 0

    async def resolve(self, host):
        answer = self._answers[host][self._turn]
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def sleep(self, duration_s):
        self._turn += 1
        self.slept_s = duration_s

    def watch(self, pool):
        return watch_dns(pool, resolve=self.resolve, sleep=self.sleep)


async def test_static_pool_answers_once_and_ends():
    pool = a_pool(members=(Member("10.0.0.1", 8000), Member("10.0.0.2", 8000)))

    answers = [endpoints async for endpoints in discover(pool)]

    assert [addresses(answer) for answer in answers] == [["10.0.0.1:8000", "10.0.0.2:8000"]]


async def test_every_address_of_every_name_is_an_endpoint_and_only_changes_are_told():
    dns = FakeDns(
        a=[["10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"], ["10.0.0.3"]],
        b=[["fd00::1"], ["fd00::1"], ["fd00::1"]],
    )
    pool = a_pool(
        members=(Member("a", 8000), Member("b", 8001)),
        resolution=Resolution.STRICT_DNS,
        dns=DnsLookup(refresh_s=7.0),
    )
    watch = dns.watch(pool)

    assert addresses(await anext(watch)) == ["10.0.0.1:8000", "10.0.0.2:8000", "[fd00::1]:8001"]
    assert addresses(await anext(watch)) == ["10.0.0.3:8000", "[fd00::1]:8001"]
    assert dns.slept_s == 7.0
    await watch.aclose()


async def test_name_that_stops_resolving_keeps_its_addresses(caplog):
    gone = socket.gaierror("Name or service not known")
    dns = FakeDns(a=[["10.0.0.1"], gone, gone], b=[gone, gone, ["10.0.0.9"]])
    pool = a_pool(members=(Member("a", 80), Member("b", 80)), resolution=Resolution.STRICT_DNS)
    watch = dns.watch(pool)

    assert addresses(await anext(watch)) == ["10.0.0.1:80"]
    assert addresses(await anext(watch)) == ["10.0.0.1:80", "10.0.0.9:80"]
    assert "a does not resolve, its 1 addresses stay" in caplog.text
    await watch.aclose()


async def test_logical_dns_takes_the_first_address():
    dns = FakeDns(a=[["10.0.0.2", "10.0.0.1"]])
    pool = a_pool(members=(Member("a", 80),), resolution=Resolution.LOGICAL_DNS)
    watch = dns.watch(pool)

    assert addresses(await anext(watch)) == ["10.0.0.2:80"]
    await watch.aclose()


async def test_localhost_is_found():
    pool = a_pool(
        members=(Member("localhost", 8000),),
        resolution=Resolution.STRICT_DNS,
        dns=DnsLookup(DnsFamily.V4_ONLY),
    )
    watch = discover(pool)

    assert "127.0.0.1:8000" in addresses(await following(watch))
    await watch.aclose()


async def test_settings_in_a_file_of_clusters_are_followed(tmp_path):
    def clusters(policy):
        pool = engines()
        pool["metadata"] = {"filter_metadata": {"lodestar": {"policy": policy}}}
        kind = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
        return {"resources": [{"@type": kind, **pool}]}

    file = written(tmp_path, clusters("random"), "cds.yaml")
    source = {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"}
    document = bootstrap([], [], dynamic_resources={"cds_config": source})
    watch = watch_config(read_envoy_config(written(tmp_path, document)))

    later = asyncio.ensure_future(following(watch))
    replace(file, written(tmp_path, clusters("least_request"), "next.yaml").read_text())

    assert (await later).pools[0].settings.policy == "least_request"
    await watch.aclose()


async def test_eds_file_is_followed_and_a_bad_one_changes_nothing(tmp_path, caplog):
    path = an_eds_file(tmp_path, "10.0.0.1")
    watch = discover(a_pool(eds=path))
    assert addresses(await following(watch)) == ["10.0.0.1:8000"]

    later = asyncio.ensure_future(following(watch))
    with refusals(caplog) as refused:
        replace(path, "resources: [")
        await refused.wait()
    replace(path, an_eds_file(tmp_path, "10.0.0.1", "10.0.0.2", name="next.yaml").read_text())

    assert addresses(await later) == ["10.0.0.1:8000", "10.0.0.2:8000"]
    assert "pool engines keeps its 1 endpoints" in caplog.text
    await watch.aclose()


async def test_endpoints_that_stay_as_they_were_are_told_as_the_same_objects(tmp_path):
    path = an_eds_file(tmp_path, "10.0.0.1", "10.0.0.2")
    async with aclosing(discover(a_pool(eds=path))) as watch:
        first, leaving = await following(watch)
        an_eds_file(tmp_path, "10.0.0.1", "10.0.0.3")
        same, other = await following(watch)
    assert same is first
    assert other != leaving


@pytest.mark.parametrize("can_begin", [True, False])
async def test_a_large_eds_file_says_the_same_as_a_small_one_wherever_it_is_read(
    tmp_path, caplog, monkeypatch, can_begin
):
    if not can_begin:
        monkeypatch.setattr(eds, "COMMAND", ("/nowhere/python",))
    hosts = [f"10.0.{i // 250}.{i % 250 + 1}" for i in range(600)]
    path = an_eds_file(tmp_path, *hosts)
    assert path.stat().st_size > eds.LARGE_BYTES
    async with aclosing(discover(a_pool(eds=path))) as watch:
        told = await following(watch)
        assert addresses(told) == [f"{host}:8000" for host in hosts]

        following_one = asyncio.create_task(following(watch))
        path.write_text(path.read_text().replace("port_value: 8000", "port_value: x", 1))
        await until(lambda: "x is not a port" in caplog.text)
        an_eds_file(tmp_path, *hosts[1:])
        assert await following_one == told[1:]
    said_so = "is read in this process" in caplog.text
    assert said_so is not can_begin


async def test_the_levels_of_an_eds_file_are_by_its_own_overprovisioning(tmp_path):
    path = an_eds_file(tmp_path, "10.0.0.1")
    path.write_text(path.read_text() + "  policy: {overprovisioning_factor: 200}\n")
    pool = a_pool(resolution=Resolution.EDS, eds=path)
    async with aclosing(discover(pool)) as watch:
        [endpoint] = await following(watch)

    assert endpoint.level.overprovisioning == 2.0


async def test_eds_file_that_is_missing_at_first_is_awaited(tmp_path):
    watch = discover(a_pool(eds=tmp_path / "eds.yaml"))
    assert await following(watch) == ()

    later = asyncio.ensure_future(following(watch))
    await asyncio.sleep(0.1)
    an_eds_file(tmp_path, "10.0.0.5")

    assert addresses(await later) == ["10.0.0.5:8000"]
    await watch.aclose()


async def test_file_behind_a_swapped_link_is_followed(tmp_path):
    """As Kubernetes updates a mounted ConfigMap."""
    for version, host in (("v1", "10.0.0.1"), ("v2", "10.0.0.2")):
        (tmp_path / version).mkdir()
        an_eds_file(tmp_path / version, host)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "eds.yaml").symlink_to("..data/eds.yaml")
    watch = discover(a_pool(eds=tmp_path / "eds.yaml"))
    assert addresses(await following(watch)) == ["10.0.0.1:8000"]

    later = asyncio.ensure_future(following(watch))
    await asyncio.sleep(0.1)
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").replace(tmp_path / "..data")

    assert addresses(await later) == ["10.0.0.2:8000"]
    await watch.aclose()


class Told:
    """What was told of the configuration: results, reasons, and that there was one."""

    def __init__(self) -> None:
        self.results, self.reasons, self.any = [], [], asyncio.Event()

    def __call__(self, result: str, why: str) -> None:
        self.results.append(result)
        self.reasons.append(why)
        self.any.set()


async def test_good_change_of_the_configuration_is_told_and_a_bad_one_refused(tmp_path):
    path = an_envoy_file(tmp_path)
    told = Told()
    watch = watch_config(read_envoy_config(path), told)
    later = asyncio.ensure_future(following(watch))

    replace(path, path.read_text().replace("policy: learned", "policy: fastest"))
    await told.any.wait()
    replace(path, path.read_text().replace("policy: fastest", "policy: random"))

    assert (await later).pools[0].settings.policy == "random"
    assert "configuration refused, the old one stays" in told.reasons[0]
    assert told.results == ["refused"]
    await watch.aclose()


async def test_comment_is_no_change_and_fixed_endpoints_are_reported(tmp_path):
    path, told = an_envoy_file(tmp_path), Told()
    watch = watch_config(read_envoy_config(path), told)
    later = asyncio.ensure_future(following(watch))
    await asyncio.sleep(0.1)
    text = "# a comment\n" + path.read_text().replace("port_value: 8001", "port_value: 8002")

    replace(path, text)
    await told.any.wait()
    replace(path, text.replace("scrape_interval_s: 0.2", "scrape_interval_s: 0.5"))

    changed = await later
    assert changed.pools[0].settings.scrape_interval_s == 0.5
    assert addresses(changed.pools[0].endpoints) == ["127.0.0.1:8000", "127.0.0.1:8001"]
    assert "the endpoints of pool engines changed; restart Envoy" in told.reasons[0]
    await watch.aclose()


async def test_a_file_is_read_again_when_that_is_asked_for(tmp_path):
    path, asked = an_envoy_file(tmp_path), asyncio.Event()
    async with aclosing(contents(path, asked=asked)) as versions:
        first = await following(versions)
        for _ in range(2):
            later = asyncio.ensure_future(following(versions))
            await asyncio.sleep(0.3)
            assert not later.done()
            asked.set()
            assert await later == first
            assert not asked.is_set()


async def test_names_of_before_are_told_once_a_file(tmp_path, caplog):
    path = an_envoy_file(tmp_path)
    watch = watch_config(read_envoy_config(path))
    later = asyncio.ensure_future(following(watch))
    await asyncio.sleep(0.1)
    old = "objective: ttft\n          model: mlp"
    replace(path, path.read_text().replace("cost: externality", old))

    assert (await later).pools[0].settings.cost == "ttft"
    (said,) = (r.getMessage() for r in caplog.records if "is now called" in r.getMessage())
    assert "objective is now called cost; " in said
    assert "model is now called predictor" in said
    await watch.aclose()


async def test_what_needs_a_restart_is_told_and_is_no_change(tmp_path, caplog):
    path, told = an_envoy_file(tmp_path), Told()
    watch = watch_config(read_envoy_config(path), told)
    later = asyncio.ensure_future(following(watch))
    await asyncio.sleep(0.1)
    replace(path, path.read_text().replace("cost: externality", "journal_path: /j"))
    await told.any.wait()

    assert "pool engines needs a restart: journal_path" in told.reasons[0]
    assert told.results == ["needs_restart"]
    assert "applied" not in caplog.text
    later.cancel()


async def test_what_envoy_shows_of_answers_changes_with_a_restart_only(tmp_path):
    old, new = (
        an_envoy_file(tmp_path),
        an_envoy_file(tmp_path, ("tag: e2e_us", "tag: e3e_us"), name="new"),
    )
    fixed, kept = fixed_parts(read_envoy_config(old), read_envoy_config(new))

    assert fixed == [
        "what Envoy shows of requests and answers changed; restart Envoy and Lodestar to apply it"
    ]
    assert kept.sources == read_envoy_config(old).sources


@pytest.mark.parametrize(
    ("written", "changed", "said"),
    [
        (
            "dns_refresh_rate: 9s",
            "dns_refresh_rate: 7s",
            r"cluster of pool engines changed \(dns",
        ),
        ("type: STRICT_DNS", "type: LOGICAL_DNS", r"cluster of pool engines changed \(resolution"),
        ("port_value: 8000", "port_value: 8001", r"endpoints of pool engines"),
    ],
)
def test_what_of_a_cluster_envoy_reads_at_its_start_needs_a_restart(
    tmp_path, written, changed, said
):
    text = """
static_resources:
  clusters:
  - name: engines
    type: STRICT_DNS
    dns_refresh_rate: 9s
    metadata: {filter_metadata: {lodestar: {policy: learned}}}
    load_assignment:
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: engines, port_value: 8000}}}
"""
    path = tmp_path / "envoy.yaml"
    path.write_text(text)
    before = read_envoy_config(path)
    path.write_text(text.replace(written, changed))
    fixed, kept = fixed_parts(before, read_envoy_config(path))

    assert len(fixed) == 1
    assert re.search(said, fixed[0])
    assert kept == before


async def test_a_settings_file_says_what_needs_a_restart_too(tmp_path):
    path, told = tmp_path / "settings.yaml", Told()
    path.write_text("policy: random\n")
    watch = watch_config(read_picker_config(ServiceRef("engines", "default"), path), told)
    later = asyncio.ensure_future(following(watch))
    await asyncio.sleep(0.1)
    replace(path, "policy: least_request\nseed: 1\n")

    settings = (await later).pools[0].settings
    assert (settings.policy, settings.seed) == ("least_request", None)
    assert "pool engines needs a restart: seed" in told.reasons[0]
    assert told.results == ["needs_restart"]
    await watch.aclose()


def test_a_source_that_the_command_line_names_stays_when_the_file_changes(tmp_path):
    config = read_envoy_config(an_envoy_file(tmp_path))
    source = KubernetesSource(ServiceRef("vllm", "default"))
    beside = replace_in(config, pools=tuple(replace_in(p, kubernetes=source) for p in config.pools))
    fixed, latest = fixed_parts(beside, config)

    assert fixed == []
    assert [pool.kubernetes for pool in latest.pools] == [source]
    assert latest == beside


async def test_cancelled_watch_ends_at_once(tmp_path):
    watch = discover(a_pool(eds=an_eds_file(tmp_path, "10.0.0.1")))
    await following(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.1)

    waiting.cancel()

    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await waiting


def replace(path, text):
    """By an atomic rename, as Envoy asks for."""
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    fresh.replace(path)


@contextlib.contextmanager
def refusals(caplog):
    """An event that is set by the next warning or error."""
    refused = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Handler(logging.Handler):
        def emit(self, record):
            loop.call_soon_threadsafe(refused.set)

    handler = Handler(logging.WARNING)
    logging.getLogger("lodestar_extproc").addHandler(handler)
    try:
        with caplog.at_level(logging.INFO):
            yield refused
    finally:
        logging.getLogger("lodestar_extproc").removeHandler(handler)
