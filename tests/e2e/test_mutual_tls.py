"""Envoy reaches us by mutual TLS: who has no certificate of ours is neither asked nor believed."""

import pytest

from certificates import Authority
from envoy_process import cluster_of
from lodestar_extproc.server_tls import ServerTls
from stack import chat, running_stack

TLS_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def by_tls(ca, shown):
    """The cluster of ours as docs/security.md has it."""
    common = {
        # gRPC refuses who does not say that it speaks HTTP/2.
        "alpn_protocols": ["h2"],
        "validation_context": {"trusted_ca": {"filename": str(ca.certificate)}},
    }
    if shown is not None:
        pair = {
            "certificate_chain": {"filename": str(shown.certificate)},
            "private_key": {"filename": str(shown.key)},
        }
        common["tls_certificates"] = [pair]

    def edit(config) -> None:
        cluster_of(config, "lodestar")["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": TLS_TYPE, "sni": "lodestar", "common_tls_context": common},
        }

    return edit


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def served(tmp_path, authority):
    folder = tmp_path / "served"
    folder.mkdir()
    signed = authority.sign("lodestar", "lodestar")
    for name, source in (("tls.crt", signed.certificate), ("tls.key", signed.key)):
        (folder / name).write_bytes(source.read_bytes())
    return ServerTls(folder, authority.certificate)


async def test_an_envoy_with_a_certificate_of_ours_is_served(tmp_path, authority, served):
    edit = by_tls(authority, authority.sign("envoy"))
    async with running_stack(tmp_path, edit=edit, tls=served) as stack:
        for _ in range(5):
            assert (await stack.post(chat()))[0] == 200
        assert len(stack.routers.routed) == 5
        await stack.completion("pool.1")


@pytest.mark.parametrize("kind", ["none", "foreign"])
async def test_without_one_envoy_asks_nobody_and_clients_are_served_all_the_same(
    tmp_path, authority, served, kind
):
    (tmp_path / "other").mkdir()
    foreign = Authority(tmp_path / "other", "foreign").sign("envoy")
    edit = by_tls(authority, None if kind == "none" else foreign)
    async with running_stack(tmp_path, edit=edit, tls=served) as stack:
        for _ in range(5):
            assert (await stack.post(chat()))[0] == 200
        assert not stack.routers.routed
        assert not stack.routers.completions
