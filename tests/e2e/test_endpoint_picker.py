"""Everything as in a mesh: a real Envoy set up the Istio way, the command as a gateway's picker by
TLS, its pool from an API server stood in for, and engines that are a pod's data-parallel ranks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import unused_port

from envoy_process import EnvoyProcess, cluster_of, connection_manager, envoy_config
from fake_api_server import NODES, PODS, POOLS, an_api_server, node_parts, pod_parts, pool_parts
from istio_gateway import patched
from kustomization import documents
from stack import CHAT, chat
from stub_engine import StubEngine

COMMAND = Path(sys.executable).parent / "lodestar-extproc"
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
PICKER = "outbound|9002||lodestar.default.svc.cluster.local"
FOLDER = Path(__file__).parents[2] / "envoy" / "istio" / "inference-pool"
(ENVOY_FILTER,) = documents(FOLDER / "envoy-filter.yaml")


def mesh_config(grpc_port, engines):
    """As istiod sets up the gateway for our pool, DestinationRule and EnvoyFilter."""
    config = envoy_config("variants/full_duplex.yaml", extproc_port=grpc_port, engines=engines)
    cluster = cluster_of(config, "lodestar")
    for ours in ("health_checks", "common_lb_config"):
        del cluster[ours]
    cluster["name"] = cluster["load_assignment"]["cluster_name"] = PICKER
    cluster["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": TLS, "common_tls_context": {"alpn_protocols": ["h2"]}},
    }
    for http_filter in connection_manager(config)["http_filters"]:
        if "grpc_service" in http_filter["typed_config"]:
            http_filter["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = PICKER
    socket = config["static_resources"]["listeners"][0]["address"]["socket_address"]
    socket["port_value"] = 80
    config = patched(config, ENVOY_FILTER)
    socket = config["static_resources"]["listeners"][0]["address"]["socket_address"]
    socket["port_value"] = 0
    return config


@asynccontextmanager
async def a_picker(server, folder):
    """The process and its gRPC and metrics ports, once it is ready."""
    kubeconfig = folder / "kubeconfig"
    cluster = {"name": "k", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}
    context = {"name": "c", "context": {"cluster": "k", "user": "u"}}
    users = [{"name": "u", "user": {"token": "t"}}]
    kubeconfig.write_text(
        json.dumps(
            {"current-context": "c", "contexts": [context], "clusters": [cluster], "users": users}
        )
    )
    grpc_port, health_port, metrics_port = unused_port(), unused_port(), unused_port()
    arguments = (
        *("--pool-name", "vllm", "--pool-namespace", "default", "--drain-timeout=3s"),
        *("--grpc-port", str(grpc_port), "--grpc-health-port", str(health_port)),
        *("--metrics-port", str(metrics_port)),
    )
    process = await asyncio.create_subprocess_exec(
        COMMAND, *arguments, env={**os.environ, "KUBECONFIG": str(kubeconfig)}
    )
    try:
        async with asyncio.timeout(60):
            while await get(metrics_port, "/ready") is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield process, grpc_port, metrics_port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def get(port, path):
    """The page, once it is answered 200."""
    url = f"http://127.0.0.1:{port}{path}"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.text() if response.status == 200 else None
    except aiohttp.ClientError:
        return None


@asynccontextmanager
async def two_engines():
    engines = (StubEngine("a"), StubEngine("b"))
    for engine in engines:
        await engine.start()
    try:
        yield engines
    finally:
        for engine in engines:
            await engine.stop()


@asynccontextmanager
async def a_mesh(folder):
    """A gateway with its picker and two engines, and a way to ask."""
    async with two_engines() as engines, an_api_server() as server:
        server.put(NODES, "gpu-1", **node_parts(**{"nvidia.com/gpu.product": "NVIDIA-L4"}))
        server.put(POOLS, "vllm", **pool_parts(*(engine.port for engine in engines)))
        server.put(PODS, "vllm-0", **pod_parts("127.0.0.1", node="gpu-1"))
        async with a_picker(server, folder) as (process, grpc_port, metrics_port):
            config = mesh_config(grpc_port, [engine.address for engine in engines])
            async with EnvoyProcess(config, folder) as envoy, aiohttp.ClientSession() as client:

                async def ask(*, stream=True):
                    async with client.post(envoy.url + CHAT, data=chat(stream=stream)) as response:
                        return response.status, await response.read()

                yield ask, engines, process, metrics_port


async def test_a_mesh_is_served_from_pool_to_answer_and_nothing_fails_when_we_stop(tmp_path):
    async with a_mesh(tmp_path) as (ask, engines, process, metrics_port):
        answers = await asyncio.gather(*(ask(stream=i % 3 > 0) for i in range(30)))
        right = {engine.stream() for engine in engines} | {engine.whole() for engine in engines}
        assert {status for status, _ in answers} == {200}
        assert {body for _, body in answers} <= right
        async with asyncio.timeout(60):
            # A stream ends a moment after its answer.
            while 'lodestar_streams_total{verdict="chosen"} 30.0' not in (  # noqa: ASYNC110
                await get(metrics_port, "/metrics")
            ):
                await asyncio.sleep(0.05)
        (pool,) = json.loads(await get(metrics_port, "/endpoints"))["pools"]
        assert {endpoint["accelerator"] for endpoint in pool["endpoints"]} == {"NVIDIA-L4"}

        # It says so before it goes: Envoy asks no more by the time nobody is there.
        process.send_signal(signal.SIGTERM)
        ended = asyncio.ensure_future(process.wait())
        late, goes_on_s = [], 0.5
        async with asyncio.timeout(60):
            while not ended.done() or goes_on_s > 0:
                late.append((await ask())[0])
                goes_on_s -= 0.05 if ended.done() else 0.0
                await asyncio.sleep(0.05)
        assert (await ended, set(late)) == (0, {200})


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
async def test_killed_or_frozen_requests_go_on_once_it_is_noticed(tmp_path, what):
    async with a_mesh(tmp_path) as (ask, _, process, _):
        assert (await ask())[0] == 200
        process.send_signal(what)

        async def goes_on():
            try:
                async with asyncio.timeout(1.0):
                    return (await ask())[0] == 200
            except TimeoutError:
                return False

        async with asyncio.timeout(60):
            while not await goes_on():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert [(await ask())[0] for _ in range(5)] == [200] * 5
