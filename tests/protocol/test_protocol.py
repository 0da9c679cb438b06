"""cases.yaml, replayed over gRPC against the whole service, with engines' metric pages."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from aiohttp import web
from ruamel.yaml import YAML

from builders import Recorder
from lodestar_extproc.completion import Outcome
from lodestar_extproc.config import read_envoy_config
from lodestar_extproc.names import SESSION_HEADERS
from lodestar_extproc.service.app import App
from lodestar_extproc.service.options import ServeOptions
from protocol_gateway import Gateway, Pods, check, message, messages

CASES = YAML(typ="safe").load(Path(__file__).parent / "cases.yaml")["cases"]
HERMETIC_CASES = 19
TRUSTED = ["objective", "slo", "model_rewrite"]
"""A gateway's own filters may have set any of them."""

pytestmark = pytest.mark.protocol


def metrics_page(pod) -> str:
    adapters = ",".join(pod.get("adapters", []))
    return (
        f'vllm:num_requests_waiting{{model_name="m"}} {pod.get("queue", 0)}\n'
        f'vllm:num_requests_running{{model_name="m"}} 0\n'
        f'vllm:kv_cache_usage_perc{{model_name="m"}} {pod.get("kv", 0)}\n'
        f'vllm:lora_requests_info{{running_lora_adapters="{adapters}",max_lora="4"}} 1.0\n'
    )


@asynccontextmanager
async def running_pods(pods):
    """Each on an address of its own, all on one port."""
    runners, port = [], 0
    try:
        for i, pod in enumerate(pods):
            app = web.Application()
            app.router.add_get("/metrics", _answering(metrics_page(pod)))
            app.router.add_get("/health", _answering(""))
            runner = web.AppRunner(app, access_log=None)
            runners.append(runner)
            await runner.setup()
            await web.TCPSite(runner, f"127.0.1.{i + 1}", port).start()
            port = runner.addresses[0][1]
        yield Pods(tuple(f"127.0.1.{i + 1}:{port}" for i in range(len(pods))))
    finally:
        for runner in runners:
            await runner.cleanup()


def _answering(text):
    async def answer(_request):
        return web.Response(text=text)

    return answer


def config_file(folder: Path, addresses, settings) -> Path:
    hosts = (address.rpartition(":") for address in addresses)
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": h, "port_value": int(p)}}}}
        for h, _, p in hosts
    ]
    cluster = {
        "name": "engines",
        "metadata": {
            "filter_metadata": {"lodestar": {"seed": 0, "trusted_headers": TRUSTED} | settings}
        },
        "load_assignment": {"endpoints": [{"lb_endpoints": endpoints}]},
    }
    path = folder / "envoy.json"
    path.write_text(json.dumps({"static_resources": {"clusters": [cluster]}}))
    return path


@asynccontextmanager
async def running_service(folder: Path, pods, settings):
    """The app on a socket, every pod's page read once; what its router said is recorded."""
    config = read_envoy_config(config_file(folder, pods.addresses, settings))
    socket = f"unix:{folder}/extproc.sock"
    app = App(config, ServeOptions(listen=(socket,), admin="127.0.0.1:0", drain_s=0, grace_s=0))
    recorder = Recorder()
    router = app.routers.get()
    router.listeners.add(recorder)
    running = asyncio.create_task(app.run())
    try:
        async with asyncio.timeout(60):
            while not _is_read(app, len(pods.addresses)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with grpc.aio.insecure_channel(socket) as channel:
            await channel.channel_ready()
            yield channel, recorder
    finally:
        app.stop()
        await running


def _is_read(app, n_pods: int) -> bool:
    read = [c for pool in app.pools() for c in pool.scrapes.values() if c.succeeded]
    return len(read) == n_pods and len(app.pools()) == 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "-"))
async def test_case(case, tmp_path):
    settings = {"policy": "least_load"} | case.get("settings", {})
    async with (
        running_pods(case["pods"]) as pods,
        running_service(tmp_path, pods, settings) as (channel, recorder),
    ):
        gateway = Gateway(channel)
        for step in pods.filled_in(case["steps"]):
            for sent in messages(step):
                await gateway.send(sent)
            for wanted in step["gets"]:
                await check(gateway, wanted, pods, step.get("ask"))
        await gateway.end()
        for name, value in case.get("decided", {}).items():
            assert getattr(recorder.decisions[-1].candidates.request, name) == value
        if "ended" in case:
            (end,) = recorder.completions
            served = case["ended"]["served"]
            # Most of the peer's texts answer no inference request.
            assert end.outcome == case["ended"].get("as", Outcome.SERVED)
            assert end.served == (served and pods.named(served))


@pytest.mark.parametrize("name", ["x-session-id", "X-Chat", "x-claude-code-session-id"])
async def test_requests_of_a_session_stay_on_one_pod_and_others_are_spread(tmp_path, name):
    settings = {"policy": "session_affinity"}
    if name not in SESSION_HEADERS:
        settings["session_header"] = name
    async with (
        running_pods([{}, {}, {}]) as pods,
        running_service(tmp_path, pods, settings) as (channel, recorder),
    ):
        for session in ("a",) * 10 + ("b", "c", "d", "e", "f"):
            body = {"request_body": '{"model":"m","prompt":"a"}', "end": True}
            gateway = Gateway(channel)
            headers = {":method": "POST", ":path": "/v1/completions", name: session}
            for step in ({"request_headers": headers}, body):
                await gateway.send(message(step))
            await gateway.reply()
            await gateway.reply()
            await gateway.end()
        chosen = [decision.address for decision in recorder.decisions]
        assert len(set(chosen[:10])) == 1
        assert len(set(chosen)) > 1
        assert set(chosen) <= set(pods.addresses)


def test_every_case_says_where_it_is_from_and_stands_once():
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert all(case["like"] for case in CASES)


def test_no_case_of_the_peers_is_left_out():
    numbers = {case["like"].removeprefix("hermetic ") for case in CASES}
    named = {int(number) for number in numbers if number.isdecimal()}
    assert named == set(range(1, HERMETIC_CASES + 1))
