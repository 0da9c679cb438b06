"""Served by TLS: a certificate made at the start, one's own, and a new one while serving."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import asynccontextmanager

import grpc
import pytest

from extproc_fakes import FakeRouters, RecordingListener
from lodestar_extproc.extproc.server import ExtProcServer
from lodestar_extproc.extproc.tls import (
    CERTIFICATE_FILE,
    KEY_FILE,
    CertificateError,
    Tls,
    self_signed,
)
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb


@asynccontextmanager
async def serving(tls, **options):
    server = ExtProcServer(FakeRouters(), RecordingListener())
    ports = await server.start(["127.0.0.1:0"], credentials=tls.credentials(), **options)
    try:
        yield server, ports
    finally:
        await server.stop(0.0)


def written(folder, pair):
    """As Kubernetes does: each file replaced at once."""
    for name, data in zip((KEY_FILE, CERTIFICATE_FILE), pair, strict=True):
        fresh = folder / f"{name}.new"
        fresh.write_bytes(data)
        # A file system that counts whole milliseconds must not hide the change.
        os.utime(fresh, ns=(0, hash(data) % 10**18))
        fresh.replace(folder / name)
    return folder


async def status(port, certificate, service="") -> int:
    """What health says to a client that trusts *certificate* alone."""
    credentials = grpc.ssl_channel_credentials(certificate)
    options = [("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        return await check(channel, service)


async def check(channel, service="") -> int:
    call = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=pb.HealthCheckRequest.SerializeToString,
        response_deserializer=pb.HealthCheckResponse.FromString,
    )
    return (await call(pb.HealthCheckRequest(service=service), timeout=5)).status


def shown(port) -> bytes:
    """The certificate a new connection is shown."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=5).encode()


async def shown_by(port):
    return await asyncio.to_thread(shown, port)


async def test_self_signed_by_default_and_never_twice_the_same():
    async with serving(Tls()) as (_, (one,)), serving(Tls()) as (_, (other,)):
        certificate = await shown_by(one)

        assert await status(one, certificate) == pb.HealthCheckResponse.SERVING
        assert await shown_by(other) != certificate


async def test_gateways_are_offered_http2():
    async with serving(Tls()) as (_, (port,)):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.transport.abort()


async def test_own_certificate_is_read_anew_when_it_changes(tmp_path, caplog):
    first, second = self_signed(), self_signed()
    async with serving(Tls(written(tmp_path, first))) as (_, (port,)):
        assert await shown_by(port) == first[1]

        written(tmp_path, second)
        assert await shown_by(port) == second[1]
        assert await status(port, second[1]) == pb.HealthCheckResponse.SERVING


async def test_pair_that_does_not_fit_leaves_the_last_good_one(tmp_path, caplog):
    first, second, third = self_signed(), self_signed(), self_signed()
    async with serving(Tls(written(tmp_path, first))) as (_, (port,)):
        written(tmp_path, (second[0], third[1]))
        assert await shown_by(port) == first[1]
        assert "the last good certificate stays" in caplog.text

        written(tmp_path, second)
        assert await shown_by(port) == second[1]


@pytest.mark.parametrize("pair", [None, (b"", b""), (b"no key", b"no certificate")])
def test_missing_or_bad_certificate_stops_the_start(tmp_path, pair):
    if pair is not None:
        written(tmp_path, pair)
    with pytest.raises(CertificateError, match="no certificate and its key"):
        Tls(tmp_path).credentials()


async def test_probes_ask_for_health_on_a_port_of_their_own_in_plain_text():
    async with serving(Tls(), health_addresses=["127.0.0.1:0"], serving=False) as (server, ports):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
            for service in ("", "readiness", "inference-extension"):
                assert await check(channel, service) == pb.HealthCheckResponse.NOT_SERVING
            assert await check(channel, "liveness") == pb.HealthCheckResponse.SERVING
            server.set_serving(serving=True)
            assert await check(channel, "inference-extension") == pb.HealthCheckResponse.SERVING
        assert await status(ports[0], await shown_by(ports[0])) == pb.HealthCheckResponse.SERVING
