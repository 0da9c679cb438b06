"""Served by TLS: a certificate made at the start, one's own, and a new one while serving."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import asynccontextmanager

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from certificates import Authority
from extproc_fakes import FakeRouters, RecordingListener
from lodestar_extproc.extproc.server import ExtProcServer
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb
from lodestar_extproc.server_tls import (
    CERTIFICATE_FILE,
    KEY_FILE,
    CertificateError,
    ServerTls,
    self_signed,
)
from lodestar_extproc.transport.grpcio_transport import credentials
from transports import a_transport, each_transport

pytestmark = pytest.mark.usefixtures(each_transport.__name__)


@asynccontextmanager
async def serving(tls, **options):
    server = ExtProcServer(FakeRouters(), RecordingListener(), transport=a_transport())
    ports = await server.start(["127.0.0.1:0"], tls=tls, **options)
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
    async with serving(ServerTls()) as (_, (one,)), serving(ServerTls()) as (_, (other,)):
        certificate = await shown_by(one)

        assert await status(one, certificate) == pb.HealthCheckResponse.SERVING
        assert await shown_by(other) != certificate


async def test_gateways_are_offered_http2():
    async with serving(ServerTls()) as (_, (port,)):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.transport.abort()


async def test_own_certificate_is_read_anew_when_it_changes(tmp_path, caplog):
    first, second = self_signed(), self_signed()
    async with serving(ServerTls(written(tmp_path, first))) as (_, (port,)):
        assert await shown_by(port) == first[1]

        written(tmp_path, second)
        assert await shown_by(port) == second[1]
        assert await status(port, second[1]) == pb.HealthCheckResponse.SERVING


async def test_pair_that_does_not_fit_leaves_the_last_good_one(tmp_path, caplog):
    first, second, third = self_signed(), self_signed(), self_signed()
    async with serving(ServerTls(written(tmp_path, first))) as (_, (port,)):
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
        credentials(ServerTls(tmp_path))


async def test_probes_ask_for_health_on_a_port_of_their_own_in_plain_text():
    async with serving(ServerTls(), health_addresses=["127.0.0.1:0"], serving=False) as (
        server,
        ports,
    ):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
            for service in ("", "readiness", "inference-extension"):
                assert await check(channel, service) == pb.HealthCheckResponse.NOT_SERVING
            assert await check(channel, "liveness") == pb.HealthCheckResponse.SERVING
            server.set_serving(serving=True)
            assert await check(channel, "inference-extension") == pb.HealthCheckResponse.SERVING
        assert await status(ports[0], await shown_by(ports[0])) == pb.HealthCheckResponse.SERVING


async def status_of_one(port, ca: Authority, signed=None) -> int:
    """What health says to a client that shows *signed*."""
    pair = (signed.key.read_bytes(), signed.certificate.read_bytes()) if signed else (None, None)
    trusted = grpc.ssl_channel_credentials(ca.certificate.read_bytes(), *pair)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", trusted) as channel:
        return await check(channel)


async def refused(port, ca: Authority, signed=None) -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await status_of_one(port, ca, signed)
    return told.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_only_clients_of_the_authority_may_connect_and_a_new_authority_counts_at_once(
    tmp_path,
):
    folders = [tmp_path / name for name in ("ours", "foreign", "served")]
    for folder in folders:
        folder.mkdir()
    ours, foreign = Authority(folders[0], "ours"), Authority(folders[1], "foreign")
    server, friend, stranger = ours.sign("server"), ours.sign("envoy"), foreign.sign("other")
    written(folders[2], (server.key.read_bytes(), server.certificate.read_bytes()))
    client_ca = folders[2] / "ca.pem"
    client_ca.write_bytes(ours.certificate.read_bytes())
    async with serving(ServerTls(folders[2], client_ca)) as (_, (port,)):
        assert await status_of_one(port, ours, friend) == pb.HealthCheckResponse.SERVING
        assert await refused(port, ours)
        assert await refused(port, ours, stranger)

        client_ca.write_bytes(b"no certificate")
        assert await status_of_one(port, ours, friend) == pb.HealthCheckResponse.SERVING
        client_ca.write_bytes(foreign.certificate.read_bytes())
        os.utime(client_ca, ns=(0, 12345678901))
        assert await status_of_one(port, ours, stranger) == pb.HealthCheckResponse.SERVING
        assert await refused(port, ours, friend)


@pytest.mark.parametrize("kind", ["missing", "no certificate", "a FIFO", "empty"])
def test_an_authority_that_cannot_be_read_stops_the_start(tmp_path, kind):
    written(tmp_path, self_signed())
    client_ca = tmp_path / "ca.pem"
    match kind:
        case "a FIFO":
            os.mkfifo(client_ca)
        case "no certificate":
            client_ca.write_text("nothing")
        case "empty":
            client_ca.touch()
    with pytest.raises(CertificateError, match=r"ca\.pem holds no certificates"):
        credentials(ServerTls(tmp_path, client_ca))


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path):
    pair = self_signed()
    key = serialization.load_pem_private_key(pair[0], None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(CertificateError, match="password"):
        credentials(ServerTls(written(tmp_path, (locked, pair[1]))))
