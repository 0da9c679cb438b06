"""Names become the same addresses for us as for the Envoy whose cluster says how to resolve them."""

import asyncio
import json

import pytest

from builders import a_pool
from envoy_files import (
    EXTENSIONS,
    address,
    bootstrap,
    cluster,
    endpoint,
    listener,
    manager,
    route_table,
)
from envoy_process import EnvoyProcess
from lodestar_extproc.config import Member, Resolution
from lodestar_extproc.config.upstream import DnsFamily, DnsLookup
from lodestar_extproc.fleet.discovery import discover
from lodestar_extproc.fleet.discovery.name_server import AAAA, A, ask
from name_server import NameServer

KNOWN = {
    "both.test": ["10.0.0.1", "10.0.0.2", "fd00::1"],
    "four.test": ["10.0.0.3"],
    "six.test": ["fd00::2"],
}


def resolved_by(server, name, family):
    """A cluster of Envoy's and the same as a pool."""
    cares = {
        "name": "cares",
        "typed_config": {
            "@type": f"{EXTENSIONS}.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [address("127.0.0.1", server.port)],
        },
    }
    of_envoy = cluster(
        f"{name}-{family}",
        endpoint(name, 8000),
        type="STRICT_DNS",
        dns_lookup_family=family.value,
        typed_dns_resolver_config=cares,
    )
    ours = a_pool(
        members=(Member(name, 8000),),
        resolution=Resolution.STRICT_DNS,
        dns=DnsLookup(family, (f"127.0.0.1:{server.port}",)),
    )
    return of_envoy, ours


async def envoys_hosts(envoy, wanted):
    """The hosts of each cluster, once all of *wanted* have some."""
    async with asyncio.timeout(60):
        while True:
            page = json.loads(await envoy.admin("/clusters?format=json"))
            found = {
                each["name"]: sorted(text_of(host) for host in each.get("host_statuses", ()))
                for each in page["cluster_statuses"]
            }
            if all(found.get(name) for name in wanted):
                return found
            await asyncio.sleep(0.05)


def text_of(host):
    socket = host["address"]["socket_address"]
    bracketed = f"[{socket['address']}]" if ":" in socket["address"] else socket["address"]
    return f"{bracketed}:{socket['port_value']}"


async def test_every_family_takes_the_addresses_that_envoy_takes(tmp_path):
    async with NameServer(KNOWN) as server:
        cases = {}
        for name in (*KNOWN, "localhost"):
            for family in DnsFamily:
                of_envoy, pool = resolved_by(server, name, family)
                cases[of_envoy["name"]] = (of_envoy, pool)
        table = {**route_table(), "virtual_hosts": []}
        config = bootstrap([listener(manager(table=table))], [c for c, _ in cases.values()])
        ours = {}
        for key, (_, pool) in cases.items():
            watch = discover(pool)
            ours[key] = sorted(each.address for each in await anext(watch))
            await watch.aclose()
        async with EnvoyProcess(config, tmp_path) as envoy:
            theirs = await envoys_hosts(envoy, [key for key, found in ours.items() if found])

    assert {key: theirs[key] for key in cases} == ours


async def test_answer_that_does_not_fit_into_a_datagram_is_fetched_by_tcp():
    async with NameServer(KNOWN, cut=True) as server:
        found = await ask(f"127.0.0.1:{server.port}", "both.test", A)

    assert found == ["10.0.0.1", "10.0.0.2"]


async def test_name_that_a_server_does_not_know_has_no_addresses():
    async with NameServer(KNOWN) as server:
        assert await ask(f"127.0.0.1:{server.port}", "nobody.test", AAAA) == []


async def test_next_server_is_asked_where_one_is_not_there():
    async with NameServer(KNOWN) as server, NameServer({}) as gone:
        pass_on = gone.port
        await gone.__aexit__()
        dns = DnsLookup(resolvers=(f"127.0.0.1:{pass_on}", f"127.0.0.1:{server.port}"))
        members = (Member("four.test", 80),)
        pool = a_pool(members=members, resolution=Resolution.STRICT_DNS, dns=dns)
        watch = discover(pool)
        assert [each.address for each in await anext(watch)] == ["10.0.0.3:80"]
        await watch.aclose()


@pytest.mark.parametrize("answer", [b"", b"\0", b"\0" * 8, b"\xff" * 40])
async def test_server_that_speaks_no_dns_is_an_error_and_no_crash(answer):
    class Babbling(NameServer):
        def answer(self, query, *, cut=False):
            return query[:2] + answer

    async with Babbling({}) as server:
        with pytest.raises(OSError, match="name server"):
            await ask(f"127.0.0.1:{server.port}", "four.test", A)
