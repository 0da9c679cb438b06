"""What goes on beside the requests: none of it can end the process, or itself without a word."""

import asyncio
import json
import os
import re
import sys
import time

import pytest

from lodestar_extproc.config import read_envoy_config
from lodestar_extproc.service.app import App
from lodestar_extproc.service.options import ServeOptions
from lodestar_extproc.supervision import BackgroundTask
from ports import a_port
from process_stack import HttpProcess, get
from waiting import until

CONFIG = """
static_resources:
  clusters:
  - name: engines
    type: {type}
    metadata: {{filter_metadata: {{lodestar: {settings}}}}}
    {endpoints}
"""
ASSIGNED = """load_assignment:
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {host}, port_value: 9}}}}}}"""
FROM_FILE = "eds_cluster_config: {{eds_config: {{path_config_source: {{path: {path}}}}}}}"
EDS = """
resources:
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: engines
  endpoints:
  - lb_endpoints:
    - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}
"""
MAPPING_KEY = "? {a: 1, b: {c: d}}\n: x\n"
LIST_KEY = "? [a, [b]]\n: x\n"


def write(path, *, policy="random", host="127.0.0.1", kind="STATIC", endpoints=None):
    settings = json.dumps({"policy": policy, "checkpoint_interval_s": 0.05})
    assigned = ASSIGNED.format(host=host) if endpoints is None else endpoints
    path.write_text(CONFIG.format(type=kind, settings=settings, endpoints=assigned))
    return path


class Serving(HttpProcess):
    """The command itself."""

    def __init__(self, folder, config) -> None:
        port = a_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "lodestar_extproc", "serve", "--envoy-config", str(config)]
        command += ["--listen", f"127.0.0.1:{a_port()}", "--admin", f"127.0.0.1:{port}"]
        command += ["--drain", "0", "--grace", "0"]
        super().__init__("service", command, folder, f"{self.url}/healthz")

    async def metric(self, line: str) -> float:
        page = await get(f"{self.url}/metrics")
        return float(re.search(rf"^{re.escape(line)} (.*)$", page, re.MULTILINE)[1])

    async def policy(self) -> str:
        (pool,) = json.loads(await get(f"{self.url}/endpoints"))["pools"]
        return pool["policy"]

    async def n_endpoints(self) -> int:
        (pool,) = json.loads(await get(f"{self.url}/endpoints"))["pools"]
        return len(pool["endpoints"])

    async def becomes(self, ask, value) -> None:
        async def is_so() -> bool:
            return await ask() == value

        await until(is_so, 60.0)

    async def refuses(self, times: int) -> None:
        name = 'lodestar_config_reloads_total{result="refused"}'

        async def has() -> bool:
            return await self.metric(name) >= times

        await until(has, 60.0)


@pytest.fixture
async def serving(tmp_path):
    started = []

    async def start(config):
        process = Serving(tmp_path, config)
        process.start()
        started.append(process)
        await process.ready()
        return process

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize("content", [MAPPING_KEY, LIST_KEY, "a: &x [*x]\n", "- " * 5000, "\0", ""])
async def test_whatever_the_watched_file_becomes_the_next_good_one_applies(
    tmp_path, serving, content
):
    path = write(tmp_path / "envoy.yaml")
    process = await serving(path)
    path.write_text(content)
    await process.refuses(1)
    write(path, policy="least_request")
    await process.becomes(process.policy, "least_request")
    assert await process.terminate() == 0


async def test_a_fifo_for_the_watched_file_is_refused_and_stops_neither_reloads_nor_the_end(
    tmp_path, serving
):
    path = write(tmp_path / "envoy.yaml")
    process = await serving(path)
    path.unlink()
    os.mkfifo(path)
    await process.refuses(1)
    path.unlink()
    write(path, policy="least_request")
    await process.becomes(process.policy, "least_request")
    path.unlink()
    os.mkfifo(path)
    await process.refuses(2)
    assert await process.terminate() == 0


@pytest.mark.parametrize("content", [MAPPING_KEY, LIST_KEY, None])
async def test_whatever_the_endpoints_file_becomes_the_known_ones_stay_and_the_next_count(
    tmp_path, serving, content
):
    eds = tmp_path / "eds.yaml"
    eds.write_text(EDS)
    source = FROM_FILE.format(path=eds)
    process = await serving(write(tmp_path / "envoy.yaml", kind="EDS", endpoints=source))
    await process.becomes(process.n_endpoints, 1)
    eds.unlink()
    if content is None:
        os.mkfifo(eds)
    else:
        eds.write_text(content)

    async def is_told() -> bool:
        return "keeps its 1 endpoints" in process.log()

    await until(is_told, 60.0)
    assert await process.n_endpoints() == 1
    eds.unlink()
    eds.write_text(EDS + EDS.splitlines()[-1].replace(": 9", ": 10"))
    await process.becomes(process.n_endpoints, 2)
    assert await process.terminate() == 0


@pytest.mark.parametrize("host", ["a..b", ".a", "x" * 64 + ".test", "a b", "\\xe4\\u20ac..test"])
@pytest.mark.parametrize("servers", [False, True])
async def test_a_name_that_can_be_nobodys_costs_itself_only(tmp_path, caplog, host, servers):
    own = (
        ASSIGNED.format(host=f'"{host}"') + "\n" + ASSIGNED.format(host="127.0.0.1").split("\n")[-1]
    )
    asked = (
        "\n    typed_dns_resolver_config: {name: cares, typed_config: {'@type': type.googleapis.com/"
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, resolvers: "
        "[{socket_address: {address: 127.0.0.1, port_value: 9}}]}}"
    )
    path = write(tmp_path / "c.yaml", kind="STRICT_DNS", endpoints=own + (asked if servers else ""))
    async with InProcess(path) as app:
        await until(lambda: len(app.routers.get().fleet.endpoints) == 1, 60.0)
    assert "does not resolve" in caplog.text
    assert "discovery failed" not in caplog.text


class InProcess:
    """The service, in this process, whose tasks can be broken."""

    def __init__(self, path) -> None:
        options = ServeOptions(
            listen=("127.0.0.1:0",), admin="127.0.0.1:0", drain_s=0.0, grace_s=0.1
        )
        self.app = App(read_envoy_config(path), options)

    async def __aenter__(self) -> App:
        self._running = asyncio.create_task(self.app.run())
        await until(lambda: bool(self.app.pools()) or self._running.done(), 60.0)
        return self.app

    async def __aexit__(self, *_: object) -> None:
        self.app.stop()
        await self._running


BROKEN = {
    BackgroundTask.DISCOVERY: "lodestar_extproc.service.upkeep.discover",
    BackgroundTask.SCRAPING: "lodestar_extproc.fleet.poller.Poller.run",
    BackgroundTask.PROBING: "lodestar_extproc.fleet.prober.Prober.run",
    BackgroundTask.EXPIRY: "lodestar_extproc.routing.router.Router.expire",
    BackgroundTask.CHECKPOINT: "lodestar_extproc.service.saved_learning.SavedLearning.save_often",
    BackgroundTask.CONFIGURATION: "lodestar_extproc.service.app.watch_config",
    BackgroundTask.READINESS: "lodestar_extproc.service.app.settle_garbage",
    BackgroundTask.LOOP_LAG: "lodestar_extproc.metrics.Metrics.loop_lag",
}


@pytest.mark.parametrize("task", BROKEN)
async def test_a_task_that_fails_is_counted_and_the_service_goes_on_and_ends_well(
    tmp_path, monkeypatch, task
):
    def broken(*_: object, **__: object) -> None:
        raise KeyError("not foreseen")

    monkeypatch.setattr(BROKEN[task], broken)
    async with InProcess(write(tmp_path / "envoy.yaml")) as app:
        counted = f'lodestar_task_failures_total{{task="{task}"}} 0.0'.encode()
        await until(lambda: counted not in app.metrics.page(), 60.0)
        monkeypatch.undo()
        await until(lambda: len(app.routers.get().fleet.endpoints) == 1, 60.0)


async def test_a_thread_that_hangs_keeps_the_process_from_ending_no_longer_than_its_deadline(
    tmp_path,
):
    program = (
        "import asyncio, os, sys, time\n"
        "from lodestar_extproc.service.exit_deadline import exit_within\n"
        "async def main():\n"
        "    hung = asyncio.create_task(asyncio.to_thread(os.read, os.pipe()[0], 1))\n"
        "    await asyncio.sleep(0.1)\n"
        "    exit_within(1.0)\n"
        "asyncio.run(main())\n"
    )
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await asyncio.wait_for(process.wait(), 60) == 4
    assert time.monotonic() - began_s >= 1.0


async def test_who_waits_for_the_end_is_told_once_when_it_begins(tmp_path):
    told = []
    config = read_envoy_config(write(tmp_path / "envoy.yaml"))
    options = ServeOptions(listen=("127.0.0.1:0",), admin="127.0.0.1:0", drain_s=0.0, grace_s=0.1)
    app = App(config, options, stopping=lambda: told.append("stopping"))
    running = asyncio.create_task(app.run())
    await until(lambda: bool(app.pools()))
    assert not told
    app.stop()
    app.stop()
    await running
    assert told == ["stopping"]
