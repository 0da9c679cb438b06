"""Every kind of store that `share` can name, each as a real server: two replicas share through it."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from certificates import Authority
from lodestar_extproc.sharing.sharer import ShareState
from lodestar_extproc.sharing.store import PASSWORD_VARIABLE, USERNAME_VARIABLE
from ports import a_port
from redis_process import (
    REDIS,
    VALKEY,
    RedisProcess,
    SentinelProcess,
    needs_redis,
    needs_valkey,
)
from sharing_routers import SharingRouter, sharing_through
from waiting import until

pytest.importorskip("redis", reason="no client of Redis: pip install 'lodestar-extproc[redis]'")
pytestmark = [needs_redis, pytest.mark.long]
LEAST_RIGHTS = "user default off\nuser router on >secret +publish +subscribe &lodestar:*\n"
"""What docs/operations.md recommends; redis-py itself asks for nothing more."""


@asynccontextmanager
async def running(*stores: RedisProcess):
    async with AsyncExitStack() as stack:
        for store in stores:
            stack.enter_context(store)
        for store in stores:
            await store.ready()
        yield stores


async def shares(replicas: list[SharingRouter], state: ShareState = ShareState.SHARED) -> None:
    """Wait until they do, and see that a request of one is known to the other."""
    a, b = replicas
    await until(lambda: all(each.state is state and each.sharer.n_peers for each in replicas))
    before = sum(b.in_flight())
    decision = a.send()
    await until(lambda: sum(b.in_flight()) == before + 1)
    a.end(decision)
    await until(lambda: sum(b.in_flight()) == before)


@pytest.mark.parametrize(
    "binary",
    [pytest.param(REDIS, id="redis"), pytest.param(VALKEY, marks=needs_valkey, id="valkey")],
)
async def test_redis_and_valkey_serve_alike(tmp_path, binary):
    store = RedisProcess(tmp_path, binary=binary)
    url = store.url.replace("redis", "valkey", 1)
    async with running(store), sharing_through(url) as replicas:
        await shares(replicas)


async def test_a_user_who_may_publish_and_subscribe_to_our_channels_and_nothing_else(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "users.acl").write_text(LEAST_RIGHTS)
    acl = ("--aclfile", str(tmp_path / "users.acl"))
    async with running(RedisProcess(tmp_path, *acl)) as (store,):
        async with sharing_through(f"redis://router:secret@{store.address}") as replicas:
            await shares(replicas)
        monkeypatch.setenv(USERNAME_VARIABLE, "router")
        monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
        async with sharing_through(store.url) as replicas:
            await shares(replicas)
        async with sharing_through(f"{store.url}?prefix=others", 1) as (a,):
            await until(lambda: "is away: NoPermissionError" in caplog.text)
            assert a.state is ShareState.ALONE


async def test_by_tls_with_certificates_of_both_sides(tmp_path, caplog):
    authority = Authority(tmp_path)
    server, client = authority.sign("server"), authority.sign("client")
    store = RedisProcess(tmp_path)
    port = ("--port", "0", "--tls-port", str(store.port))
    files = ("--tls-cert-file", str(server.certificate), "--tls-key-file", str(server.key))
    store.command += [*port, *files, "--tls-ca-cert-file", str(authority.certificate)]
    with store:
        await until(lambda: "Ready to accept connections" in store.log())
        url = f"rediss://{store.address}?ca={authority.certificate}"
        own = f"{url}&cert={client.certificate}&key={client.key}"
        async with sharing_through(own) as replicas:
            await shares(replicas)
        for refused in (url, f"rediss://{store.address}", store.url):
            caplog.clear()
            async with sharing_through(refused, 1) as (a,):
                await until(lambda: "is away: " in caplog.text)
                assert a.state is ShareState.ALONE


async def test_by_the_file_of_a_socket(tmp_path):
    path = tmp_path / "redis.sock"
    store = RedisProcess(tmp_path, "--unixsocket", str(path))
    async with running(store), sharing_through(f"unix://{path}") as replicas:
        await shares(replicas)


@pytest.mark.timeout(120)
async def test_sentinels_name_the_master_and_the_next_one_when_it_dies(tmp_path):
    master = RedisProcess(tmp_path)
    copy = ("--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0")
    async with running(master, RedisProcess(tmp_path, *copy, name="copy")) as (_, other):
        await until(lambda: b"master_link_status:up" in other.ask("INFO", "replication"))
        with SentinelProcess(tmp_path, master) as sentinel:
            await until(lambda: "+slave" in sentinel.log())
            url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main"
            async with sharing_through(url) as replicas:
                await shares(replicas)
                master.kill()
                await until(lambda: b"role:master" in other.ask("INFO", "replication"))
                await shares(replicas)


@pytest.mark.timeout(120)
async def test_what_one_node_of_a_cluster_is_told_is_heard_at_the_others_and_one_may_die(tmp_path):
    nodes, between = [], [a_port() for _ in range(3)]
    for number, port in enumerate(between):
        own = ("--cluster-enabled", "yes", "--cluster-config-file", f"node{number}.conf")
        # Its own choice, 10,000 above the other, may be no port.
        own = (*own, "--cluster-port", str(port))
        nodes.append(RedisProcess(tmp_path, *own, name=f"node{number}"))
    async with running(*nodes):
        first, second, third = nodes
        bounds = (0, 5461, 10922, 16384)
        for node, low, high in zip(nodes, bounds, bounds[1:], strict=False):
            assert node.ask("CLUSTER", "ADDSLOTSRANGE", str(low), str(high - 1)) == b"+OK\r\n"
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(first.port), str(between[0]))
        for node in nodes:
            await until(lambda node=node: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))
            await until(lambda node=node: b"known_nodes:3" in node.ask("CLUSTER", "INFO"))

        async with (
            sharing_through(f"redis+cluster://{first.address},{third.address}", 1) as (a,),
            sharing_through(f"redis+cluster://{second.address},{first.address}", 1, first=9) as (
                b,
            ),
        ):
            await shares([a, b])
            second.kill()
            await shares([a, b])
