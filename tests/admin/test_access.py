"""Who may ask the admin server: by host name, by token, by certificate."""

import base64
import os
import ssl
from contextlib import asynccontextmanager

import aiohttp
import pytest

from certificates import Authority
from lodestar_extproc.admin.access import ANYBODY, AdminAccess, TokenError
from lodestar_extproc.admin.server import AdminServer
from lodestar_extproc.server_tls import CertificateError, ServerTls
from metrics_world import World

PATHS = ("/", "/metrics", "/endpoints", "/decisions", "/explain/x", "/nowhere")
OPEN = ("/healthz", "/ready")


@asynccontextmanager
async def asking(access: AdminAccess, scheme="http", client: ssl.SSLContext | None = None):
    """Asks for a path, with headers; returns the status."""
    world = World(1)
    server = AdminServer(world.metrics, lambda: [world.view()])
    port = await server.start("127.0.0.1:0", access)
    server.set_ready(ready=True)

    async def ask(path: str, **headers: str) -> int:
        connector = aiohttp.TCPConnector(ssl=client or True)
        url = f"{scheme}://127.0.0.1:{port}{path}"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url, headers=headers) as response,
        ):
            return response.status

    try:
        yield ask
    finally:
        await server.stop()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9090",
        "127.0.0.1.evil.example",
        "[::1].evil.example",
        "1.2.3.4.nip.io",
        "localhost.evil.example",
        "a.svc.example",
    ],
)
async def test_a_page_whose_name_was_made_to_lead_here_gets_nothing(host):
    async with asking(ANYBODY) as ask:
        assert {await ask(path, Host=host) for path in (*PATHS, *OPEN)} == {403}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9090",
        "10.1.2.3",
        "[::1]:9090",
        "[fd00::7]",
        "localhost:9090",
        "lodestar:9090",
        "lodestar.llm.svc:9090",
        "lodestar.llm.svc.cluster.local",
        "LOCALHOST",
        "node.internal.",
    ],
)
async def test_addresses_and_internal_names_are_known(host):
    async with asking(ANYBODY) as ask:
        assert await ask("/metrics", Host=host) == 200


async def test_a_name_that_an_option_names_is_known():
    async with asking(AdminAccess(hosts=("Lodestar.Example.com",))) as ask:
        assert await ask("/metrics", Host="lodestar.example.com:443") == 200
        assert await ask("/metrics", Host="www.lodestar.example.com") == 403


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"any:{password}".encode()).decode()


async def test_the_token_opens_everything_and_probes_need_none(tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    async with asking(AdminAccess(token_file=token)) as ask:
        for path in OPEN:
            assert await ask(path) == 200
        for path in PATHS:
            assert await ask(path) == 401
            for wrong in (
                "",
                "Bearer",
                "Bearer s3cre",
                "Bearer s3cret2",
                "Basic ???",
                "s3cret",
                "Bearer \u00e4",
                basic("x"),
                "Digest s3cret",
            ):
                assert await ask(path, Authorization=wrong) == 401
        for right in ("Bearer s3cret", "bearer  s3cret", basic("s3cret")):
            assert await ask("/metrics", Authorization=right) == 200

        token.write_text("another")
        assert await ask("/metrics", Authorization="Bearer s3cret") == 401
        assert await ask("/metrics", Authorization="Bearer another") == 200
        token.unlink()
        assert await ask("/metrics", Authorization="Bearer another") == 503
        assert await ask("/metrics", Authorization="Bearer ") == 503
        assert await ask("/ready") == 200


@pytest.mark.parametrize("kind", ["missing", "empty", "a FIFO"])
async def test_a_token_that_cannot_be_read_stops_the_start(tmp_path, kind):
    token = tmp_path / "token"
    if kind == "empty":
        token.write_text("\n")
    elif kind == "a FIFO":
        os.mkfifo(token)
    with pytest.raises(TokenError, match="token"):
        async with asking(AdminAccess(token_file=token)):
            pass


def folder_of(folder, signed):
    folder.mkdir(exist_ok=True)
    for name, source in (("tls.key", signed.key), ("tls.crt", signed.certificate)):
        fresh = folder / f"{name}.new"
        fresh.write_bytes(source.read_bytes())
        fresh.replace(folder / name)
    return folder


def client_of(ca: Authority, signed=None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca.certificate)
    if signed is not None:
        context.load_cert_chain(signed.certificate, signed.key)
    return context


async def test_clients_need_a_certificate_of_the_authority_and_new_files_count_at_once(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    ours, other = Authority(tmp_path / "a", "ours"), Authority(tmp_path / "b", "other")
    served = folder_of(tmp_path / "served", ours.sign("server"))
    client_ca = tmp_path / "ca.pem"
    client_ca.write_bytes(ours.certificate.read_bytes())
    access = AdminAccess(ServerTls(served, client_ca))
    # With TLS 1.3 a client learns of it when it reads.
    refusal = (aiohttp.ClientError, ConnectionError)
    friend, stranger = client_of(ours, ours.sign("friend")), client_of(ours, other.sign("stranger"))
    async with asking(access, "https", friend) as ask:
        assert await ask("/metrics") == 200
        folder_of(served, other.sign("server2"))
        os.utime(served / "tls.crt", ns=(0, 12345678901))
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask("/metrics")
    for client in (client_of(ours), stranger):
        folder_of(served, ours.sign("server3"))
        async with asking(access, "https", client) as ask:
            with pytest.raises(refusal):
                await ask("/metrics")
    async with asking(access, "https", stranger) as ask:
        client_ca.write_bytes(other.certificate.read_bytes())
        os.utime(client_ca, ns=(0, 12345678901))
        assert await ask("/metrics") == 200
    async with asking(access, "https", friend) as ask:
        with pytest.raises(refusal):
            await ask("/metrics")


async def test_files_that_are_no_pair_stop_the_start(tmp_path):
    with pytest.raises(CertificateError):
        async with asking(AdminAccess(ServerTls(tmp_path))):
            pass
