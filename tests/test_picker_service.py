"""The whole service as a gateway's endpoint picker: the real command, gRPC and TLS, an API server
stood in for, and engines that are asked for their health."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer, unused_port

from fake_api_server import (
    NODES,
    PODS,
    POOLS,
    SLICES,
    an_api_server,
    node_parts,
    pod_parts,
    pool_parts,
    slice_parts,
)
from lodestar_extproc import names
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb
from waiting import until

COMMAND = Path(sys.executable).parent / "lodestar-extproc"
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING


class Picker:
    """The process, and what a gateway and the kubelet see of it."""

    def __init__(self, process, ports, log):
        self.process = process
        self.grpc_port, self.health_port, self.metrics_port = ports
        self.log = log

    async def health(self, service="inference-extension"):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.health_port}") as channel:
            call = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=pb.HealthCheckRequest.SerializeToString,
                response_deserializer=pb.HealthCheckResponse.FromString,
            )
            try:
                return (await call(pb.HealthCheckRequest(service=service), timeout=2)).status
            except grpc.aio.AioRpcError:
                return None

    async def becomes(self, status, deadline_s=60.0):
        async with asyncio.timeout(deadline_s):
            while await self.health() != status:
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)

    async def pick(self) -> list[str]:
        """The endpoints that one request is given."""
        certificate = await asyncio.to_thread(
            ssl.get_server_certificate, ("127.0.0.1", self.grpc_port), timeout=5
        )
        credentials = grpc.ssl_channel_credentials(certificate.encode())
        options = [("grpc.ssl_target_name_override", "localhost")]
        target = f"127.0.0.1:{self.grpc_port}"
        async with grpc.aio.secure_channel(target, credentials, options) as channel:
            call = channel.stream_stream(
                names.PROCESS_METHOD, response_deserializer=pb.ProcessingResponse.FromString
            )(timeout=5)
            headers = pb.ProcessingRequest()
            headers.protocol_config.request_body_mode = 2
            for key, value in ((":method", "POST"), (":path", "/v1/chat/completions")):
                headers.request_headers.headers.headers.add(
                    key=key.encode(), raw_value=value.encode()
                )
            body = pb.ProcessingRequest(request_body=pb.HttpBody(body=CHAT, end_of_stream=True))
            for message in (headers, body):
                await call.write(message.SerializeToString())
            while (reply := await call.read()) is not grpc.aio.EOF:
                told = reply.dynamic_metadata.fields[names.METADATA_NAMESPACE]
                if names.DESTINATION in (choice := told.struct_value.fields):
                    return choice[names.DESTINATION].string_value.split(",")
        return []

    async def get(self, path):
        url = f"http://127.0.0.1:{self.metrics_port}{path}"
        async with ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()


@asynccontextmanager
async def a_process(server, folder, *arguments):
    """The command, with credentials for *server*, and the file it logs to."""
    kubeconfig = folder / "kubeconfig"
    user = {"name": "u", "user": {"token": "t"}}
    cluster = {"name": "k", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}
    context = {"name": "c", "context": {"cluster": "k", "user": "u"}}
    config = {"current-context": "c", "contexts": [context], "clusters": [cluster], "users": [user]}
    kubeconfig.write_text(json.dumps(config))
    log = folder / "log"
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            COMMAND, *arguments, stderr=output, env=environment
        )
    try:
        yield process, log
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def a_picker(server, folder, *arguments):
    ports = unused_port(), unused_port(), unused_port()
    flags = zip(("--grpc-port", "--grpc-health-port", "--metrics-port"), ports, strict=True)
    given = (*arguments, *(str(part) for pair in flags for part in pair))
    async with a_process(server, folder, *given) as (process, log):
        yield Picker(process, ports, log)


@pytest.fixture
async def engine_port():
    async def answer(_):
        return web.Response(text="vllm:num_requests_running 0\n")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app, host="0.0.0.0") as server:
        yield server.port


async def test_from_a_manifests_arguments_to_choices_and_a_quiet_end(engine_port, tmp_path):
    async with an_api_server() as server:
        server.put(NODES, "gpu-1", **node_parts(**{"nvidia.com/gpu.product": "NVIDIA-L4"}))
        server.put(POOLS, "vllm", **pool_parts(engine_port))
        server.put(PODS, "a", **pod_parts("127.0.0.1", node="gpu-1"))
        server.put(PODS, "b", **pod_parts("127.0.0.2", node="gpu-1"))
        server.put(PODS, "c", **pod_parts("127.0.0.3", ready=False))
        plugins = tmp_path / "plugins.yaml"
        plugins.write_text("kind: EndpointPickerConfig\nplugins: []\n")
        arguments = (
            *("--pool-name", "vllm", "--pool-namespace", "default", "--v", "3"),
            *("--zap-encoder", "json", "--config-file", str(plugins), "--drain-timeout", "3s"),
        )
        async with a_picker(server, tmp_path, *arguments) as picker:
            await picker.becomes(SERVING)
            a, b = f"127.0.0.1:{engine_port}", f"127.0.0.2:{engine_port}"
            assert sorted(await picker.pick()) == [a, b]
            status, page = await picker.get("/metrics")
            assert (status, "lodestar_" in page) == (200, True)
            assert "NVIDIA-L4" in (await picker.get("/endpoints"))[1]

            server.put(PODS, "a", **pod_parts("127.0.0.1", ready=False, node="gpu-1"))
            async with asyncio.timeout(60):
                while await picker.pick() != [b]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

            await server.go()
            assert await picker.pick() == [b]
            assert await picker.health() == SERVING

            picker.process.send_signal(signal.SIGTERM)
            await picker.becomes(NOT_SERVING)
            assert await picker.health("liveness") == SERVING
            assert await picker.pick() == [b]
            async with asyncio.timeout(60):
                assert await picker.process.wait() == 0
        assert "Traceback" not in picker.log.read_text()


async def test_not_ready_until_the_pool_was_heard_of(engine_port, tmp_path):
    async with an_api_server() as server:
        server.put(POOLS, "vllm", **pool_parts(engine_port))
        await server.go()
        arguments = ("epp", "--pool-name=vllm", "--pool-namespace=default", "--drain-timeout=0s")
        async with a_picker(server, tmp_path, *arguments) as picker:
            await picker.becomes(NOT_SERVING)
            assert await picker.health("liveness") == SERVING
            assert (await picker.get("/ready"))[0] == 503
            await server.come()
            await picker.becomes(SERVING)


async def test_settings_file_is_followed(engine_port, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("policy: least_request\n")
    async with an_api_server() as server:
        server.put(POOLS, "vllm", **pool_parts(engine_port))
        server.put(PODS, "a", **pod_parts("127.0.0.1"))
        arguments = ("--pool-name=vllm", "--pool-namespace=default", f"--config-file={settings}")
        async with a_picker(server, tmp_path, *arguments) as picker:
            await picker.becomes(SERVING)
            assert '"least_request"' in (await picker.get("/endpoints"))[1]

            settings.write_text("policy: no_such_policy\n")
            await until(lambda: "configuration refused" in picker.log.read_text())
            settings.write_text("policy: round_robin\nendpoints: {accelerator: h100}\n")
            async with asyncio.timeout(60):
                while '"h100"' not in (page := (await picker.get("/endpoints"))[1]):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert '"round_robin"' in page


async def test_without_a_cluster_it_ends_and_says_so(tmp_path):
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *("--pool-name", "vllm"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(tmp_path / "nothing"), "NAMESPACE": "x"},
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 2
    assert b"no Kubernetes API server" in said


async def test_endpoints_beside_an_envoy_configuration_are_the_services(engine_port, tmp_path):
    ready = {"addresses": ["127.0.0.1"], "conditions": {"ready": True}, "nodeName": "gpu-1"}
    async with an_api_server() as server:
        server.put(NODES, "gpu-1", **node_parts(**{"nvidia.com/gpu.product": "NVIDIA-L4"}))
        server.put(SLICES, "a", **slice_parts(ready, ports=(("http", engine_port),)))
        gateway = Path(__file__).parents[1] / "envoy" / "kubernetes" / "gateway.yaml"
        ports = [unused_port() for _ in range(3)]
        grpc_port, health_port, metrics_port = ports
        arguments = (
            *("serve", f"--envoy-config={gateway}", "--service=vllm:http", "--namespace=default"),
            *(f"--listen=127.0.0.1:{grpc_port}", f"--health=127.0.0.1:{health_port}"),
            f"--admin=127.0.0.1:{metrics_port}",
        )
        async with a_process(server, tmp_path, *arguments) as (process, log):
            picker = Picker(process, ports, log)
            await picker.becomes(SERVING)

            async def is_shown() -> bool:
                _, page = await picker.get("/endpoints")
                return f'"127.0.0.1:{engine_port}"' in page and "NVIDIA-L4" in page

            await until(is_shown)
