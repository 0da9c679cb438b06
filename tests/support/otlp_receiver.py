"""OTLP over HTTP as any receiver takes it, and a real collector before it where one is installed."""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from ruamel.yaml import YAML

from child_process import ChildProcess
from ports import a_port
from waiting import until

ROOT = Path(__file__).parents[2]
COLLECTOR = shutil.which("otelcol") or ROOT / ".tools" / "bin" / "otelcol"
HAS_COLLECTOR = Path(COLLECTOR).exists()


@dataclass
class Told:
    """One span, as it arrived."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    took_s: float


@dataclass
class Receiver:
    url: str
    spans: list[Told] = field(default_factory=list)

    def of(self, name: str) -> list[Told]:
        return [span for span in self.spans if span.name == name]

    async def take(self, request: web.Request) -> web.Response:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415

        export = trace_service_pb2.ExportTraceServiceRequest.FromString(await request.read())
        for resource in export.resource_spans:
            service = _plain(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self.spans += [_told(service, span) for span in scope.spans]
        return web.Response(
            body=trace_service_pb2.ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )


@asynccontextmanager
async def otlp_receiver():
    app, port = web.Application(), a_port()
    receiver = Receiver(f"http://127.0.0.1:{port}")
    app.add_routes([web.post("/v1/traces", receiver.take)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def a_collector(receiver: Receiver, folder: Path):
    """A real OpenTelemetry collector that sends on to *receiver*; its URL."""
    port = a_port()
    pipeline = {"receivers": ["otlp"], "exporters": ["otlphttp"]}
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {"otlphttp": {"endpoint": receiver.url, "compression": "none"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": pipeline},
        },
    }
    file, url = folder / "collector.yaml", f"http://127.0.0.1:{port}"
    with file.open("w") as out:
        YAML().dump(config, out)

    with ChildProcess("collector", [str(COLLECTOR), f"--config={file}"], folder) as process:

        async def listens() -> bool:
            process.check_alive()
            try:
                async with aiohttp.ClientSession() as client, client.post(f"{url}/v1/traces"):
                    return True
            except aiohttp.ClientError:
                return False

        await until(listens)
        yield url


def _told(service: str, span: Any) -> Told:
    return Told(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _plain(span.attributes),
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
