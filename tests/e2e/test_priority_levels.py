"""Priority levels: the shares of a real Envoy are the ones we compute, and its choice is ours."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from envoy_process import EnvoyProcess
from lodestar_extproc.fleet.levels import LevelCount, shares

pytestmark = pytest.mark.long

N_REQUESTS = 600
TOLERANCE = 0.07  # 3.5 standard deviations of a share of one half
CASES = [
    # Of each level: endpoints, and how many of them are healthy.
    ((2, 2), (1, 1)),
    ((2, 1), (1, 1)),
    ((4, 1), (2, 2)),
    ((2, 0), (1, 1)),
    ((4, 1), (4, 1)),
    ((4, 2), (4, 1), (2, 2)),
    ((3, 0), (1, 0)),
    ((3, 1), (3, 2)),
]


def cluster(name, case, ports):
    localities, numbers = [], iter(ports)
    for priority, (n, n_healthy) in enumerate(case):
        entries = [
            {
                "endpoint": {
                    "address": {
                        "socket_address": {"address": "127.0.0.1", "port_value": next(numbers)}
                    }
                },
                "health_status": "HEALTHY" if i < n_healthy else "UNHEALTHY",
            }
            for i in range(n)
        ]
        localities.append({"priority": priority, "lb_endpoints": entries})
    return {
        "name": name,
        "connect_timeout": "5s",
        "lb_policy": "RANDOM",
        "load_assignment": {"cluster_name": name, "endpoints": localities},
    }


def bootstrap(clusters):
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "cases",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"path": f"/{c['name']}"}, "route": {"cluster": c["name"]}}
                        for c in clusters
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"name": "cases", "address": address, "filter_chains": [{"filters": filters}]}
    return {
        "admin": {"address": address},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


@asynccontextmanager
async def numbered_engines(n):
    """Engines that answer with their number; their ports."""
    async with AsyncExitStack() as stack:
        ports = []
        for number in range(n):

            async def answer(_, number=number):
                return web.Response(text=str(number))

            app = web.Application()
            app.router.add_get("/{path:.*}", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            ports.append(runner.addresses[0][1])
        yield ports


async def test_a_real_envoy_shares_requests_out_as_we_compute_it(tmp_path):
    sizes = [sum(n for n, _ in case) for case in CASES]
    async with numbered_engines(max(sizes)) as ports:
        clusters = [cluster(f"case{i}", case, ports) for i, case in enumerate(CASES)]
        async with EnvoyProcess(bootstrap(clusters), tmp_path) as envoy:
            for i, case in enumerate(CASES):
                served = await asked(envoy, f"/case{i}")
                levels = [level for level, (n, _) in enumerate(case) for _ in range(n)]
                seen = Counter(levels[number] for number in served)
                expected = Counter()
                for share in shares([LevelCount(n, healthy) for n, healthy in case]):
                    expected[share.level] += share.percent
                for level in range(len(case)):
                    ratio = seen[level] / N_REQUESTS
                    assert ratio == pytest.approx(expected[level] / 100, abs=TOLERANCE), case


async def asked(envoy, path):
    async with aiohttp.ClientSession() as client:

        async def ask():
            async with client.get(envoy.url + path) as response:
                assert response.status == 200
                return int(await response.text())

        served = []
        for _ in range(N_REQUESTS // 20):
            served += await asyncio.gather(*(ask() for _ in range(20)))
        return served
