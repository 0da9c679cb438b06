"""EngineClient by TLS, against servers that show, and ask for, real certificates."""

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager, closing

import pytest
import uvloop

from certificates import Authority
from lodestar_extproc.encryption import Pem, UpstreamTls
from lodestar_extproc.fleet import engine_tls
from lodestar_extproc.fleet.engine_client import EngineClient, EngineSilent

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@asynccontextmanager
async def engine(context):
    """An engine behind TLS; its URL."""

    async def serve(reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(WHOLE)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/metrics"
    finally:
        listening.close()


async def asked(client, url, tls, within_s=10.0):
    answer = await client.get(url, within_s=within_s, max_bytes=1000, tls=tls)
    return answer.body


async def outcome(url, tls, within_s=10.0):
    """What was answered, or the problem."""
    with closing(EngineClient()) as client:
        try:
            return (await asked(client, url, tls, within_s)).decode()
        except (EngineSilent, OSError, ValueError) as error:
            return str(error)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def trusting(authority, **more) -> UpstreamTls:
    return UpstreamTls(trusted_ca=Pem(authority.certificate), **more)


async def test_a_certificate_of_the_trusted_authority_will_do(authority):
    async with engine(authority.sign("engine").server_context()) as url:
        assert await outcome(url, trusting(authority)) == "hello"


async def test_a_certificate_of_another_authority_will_not(authority, tmp_path):
    other = Authority(tmp_path, "other")
    async with engine(other.sign("engine").server_context()) as url:
        assert "certificate verify failed" in await outcome(url, trusting(authority))


@pytest.mark.parametrize("tls", [UpstreamTls(), UpstreamTls(untrusted=True, system_roots=True)])
async def test_where_envoy_checks_none_any_will_do(authority, tls):
    async with engine(authority.sign("engine").server_context()) as url:
        assert await outcome(url, tls) == "hello"


async def test_the_systems_authorities_do_not_know_ours(authority):
    async with engine(authority.sign("engine").server_context()) as url:
        assert "verify failed" in await outcome(url, UpstreamTls(system_roots=True))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "hello"),
        (("engine.models",), "hello"),
        (("other", "127.0.0.1"), "hello"),
        (("other",), "has the names engine.models, 127.0.0.1, and not other"),
    ],
)
async def test_a_certificate_needs_one_of_the_names_that_are_listed(authority, names, said):
    signed = authority.sign("engine", "engine.models", "127.0.0.1")
    async with engine(signed.server_context()) as url:
        assert said in await outcome(url, trusting(authority, subject_names=names))


async def test_who_asks_shows_envoys_certificate_where_one_is_asked_for(authority):
    ours, theirs = authority.sign("ours"), authority.sign("engine")
    pair = {"certificate": Pem(ours.certificate), "private_key": Pem(ours.key)}
    async with engine(theirs.server_context(authority.certificate)) as url:
        assert await outcome(url, trusting(authority, **pair)) == "hello"
        assert await outcome(url, trusting(authority)) != "hello"


async def test_certificates_may_stand_in_the_configuration(authority):
    ours = authority.sign("ours")
    tls = UpstreamTls(
        trusted_ca=Pem(text=authority.certificate.read_text()),
        certificate=Pem(text=ours.certificate.read_text()),
        private_key=Pem(text=ours.key.read_text()),
    )
    context = authority.sign("engine").server_context(authority.certificate)
    async with engine(context) as url:
        assert await outcome(url, tls) == "hello"


@pytest.mark.parametrize(("name", "sent"), [("", None), ("engine.models", "engine.models")])
async def test_the_name_that_is_asked_for_is_the_configurations(authority, name, sent):
    context, heard = authority.sign("engine").server_context(), []
    context.sni_callback = lambda _, asked_for, __: heard.append(asked_for)
    async with engine(context) as url:
        assert await outcome(url, trusting(authority, server_name=name)) == "hello"

    assert heard == [sent]


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_what_cannot_be_read_is_named(authority, tmp_path, content):
    path = tmp_path / "missing.pem"
    if content is not None:
        path.write_text(content)
    async with engine(authority.sign("engine").server_context()) as url:
        said = await outcome(url, UpstreamTls(trusted_ca=Pem(path)))

    assert str(path) in said


async def test_a_key_with_a_password_is_refused_and_not_asked_for(authority):
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    signed = authority.sign("ours")
    key = serialization.load_pem_private_key(signed.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    signed.key.write_bytes(key.private_bytes(encoding, form, locked))
    tls = UpstreamTls(certificate=Pem(signed.certificate), private_key=Pem(signed.key))
    async with engine(authority.sign("engine").server_context()) as url:
        assert "password" in await outcome(url, tls)


async def test_files_that_change_are_read_anew(authority, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_tls, "REREAD_S", -1.0)
    trusted = tmp_path / "trusted.pem"
    tls = UpstreamTls(trusted_ca=Pem(trusted))
    async with engine(authority.sign("engine").server_context()) as url:
        with closing(EngineClient()) as client:
            with pytest.raises(ValueError, match=r"trusted.pem"):
                await asked(client, url, tls)
            trusted.write_bytes(authority.certificate.read_bytes())
            assert await asked(client, url, tls) == b"hello"
            # A connection that was made by the old file does not outlive it.
            trusted.write_bytes(Authority(tmp_path, "other").certificate.read_bytes())
            with pytest.raises(ssl.SSLCertVerificationError):
                await asked(client, url, tls)


async def test_plain_http_where_tls_is_wanted_is_a_problem_and_so_is_the_reverse(authority):
    # Such an engine says nothing: it waits for the end of what it takes for a request.
    async with engine(None) as url:
        assert await outcome(url, trusting(authority), within_s=1.0) != "hello"
    async with engine(authority.sign("engine").server_context()) as url:
        assert await outcome(url.replace("https", "http"), None) != "hello"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("header", [b"Content-Length: 3000000", b"Connection: close"])
def test_a_long_page_comes_whole_from_an_engine_that_then_closes(authority, run, header):
    page, tls = b"x" * 3_000_000, trusting(authority)
    context = authority.sign("engine").server_context()

    def serve(listening: socket.socket) -> None:
        peer, _ = listening.accept()
        with context.wrap_socket(peer, server_side=True) as encrypted:
            encrypted.recv(65536)
            encrypted.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (header, page))

    async def main() -> bytes:
        with closing(EngineClient()) as client, socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"https://127.0.0.1:{listening.getsockname()[1]}/metrics"
            serving = asyncio.create_task(asyncio.to_thread(serve, listening))
            answer = await client.get(url, within_s=10.0, max_bytes=2 * len(page), tls=tls)
            await serving
            return answer.body

    assert run(main()) == page
