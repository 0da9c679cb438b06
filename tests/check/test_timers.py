"""Every timer of Envoy's at 2 s, against answers of 5 s: those that cut are those the doctor names."""

import asyncio
import copy
import json

import aiohttp
import pytest
from aiohttp import web

from builders import DEFAULT_ENVOY_FILE
from envoy_process import EnvoyProcess, _set_endpoints
from lodestar_extproc.check.rules.timers import answer_timers
from lodestar_extproc.check.subject import subject_of
from lodestar_extproc.config.node import Node
from lodestar_extproc.config.resources import read_resources
from lodestar_extproc.config.schema import BOOTSTRAP
from trapped_files import (
    DEFAULT,
    action,
    connection_manager,
    host,
    http_filters,
    options,
    pool,
    put,
    retry_policy,
    to_the_host,
)
from waiting import until

ANSWER_S, EVERY_S, TIMER = 5.0, 0.5, "2s"
HTTP = "common_http_protocol_options"
WHOLE, SILENT, CHUNKS = "whole", "silent", "chunks"
"""An answer that is not streamed; headers at once and then nothing; a chunk now and then."""
ASKED = {"grpc-timeout": "4S"}


def _manager_http(**values):
    return put(connection_manager, **{HTTP: values})


def _pool_http(**values):
    return lambda config: options(pool(config)).update({HTTP: {"idle_timeout": "4s"} | values})


def _old_pool_http(config):
    del pool(config)["typed_extension_protocol_options"]
    pool(config)[HTTP] = {"max_stream_duration": TIMER}


def _both(*edits):
    return lambda config: [edit(config) for edit in edits]


CASES = {
    "nothing": (lambda _: None, ()),
    "timeout": (put(action, timeout=TIMER), (WHOLE, SILENT, CHUNKS)),
    "route idle": (put(action, idle_timeout=TIMER), (WHOLE, SILENT)),
    "stream idle": (put(connection_manager, stream_idle_timeout=TIMER), (WHOLE, SILENT)),
    "stream idle, off on the route": (
        _both(put(connection_manager, stream_idle_timeout=TIMER), put(action, idle_timeout="0s")),
        (),
    ),
    "route max stream": (
        put(action, max_stream_duration={"max_stream_duration": TIMER}),
        (WHOLE, SILENT, CHUNKS),
    ),
    "manager max stream": (_manager_http(max_stream_duration=TIMER), (WHOLE, SILENT, CHUNKS)),
    "manager max stream, empty on the route": (
        _both(_manager_http(max_stream_duration=TIMER), put(action, max_stream_duration={})),
        (WHOLE, SILENT, CHUNKS),
    ),
    "manager max stream, off on the route": (
        _both(
            _manager_http(max_stream_duration=TIMER),
            put(action, max_stream_duration={"max_stream_duration": "0s"}),
        ),
        (),
    ),
    "grpc-timeout": (
        put(action, max_stream_duration={"grpc_timeout_header_max": TIMER}),
        (WHOLE, SILENT, CHUNKS),
    ),
    "cluster max stream": (_pool_http(max_stream_duration=TIMER), (WHOLE, SILENT, CHUNKS)),
    "old cluster max stream": (_old_pool_http, (WHOLE, SILENT, CHUNKS)),
    "per try": (put(retry_policy, per_try_timeout=TIMER), (WHOLE,)),
    "per try of the host": (_both(put(retry_policy, per_try_timeout=TIMER), to_the_host), (WHOLE,)),
    "per try of the host, with one of its own": (
        lambda config: host(config).update(
            retry_policy=retry_policy(config) | {"per_try_timeout": TIMER}
        ),
        (),
    ),
    "per try, idle": (put(retry_policy, per_try_idle_timeout=TIMER), (WHOLE, SILENT)),
    "request timeout": (put(connection_manager, request_timeout=TIMER), ()),
    "connection idle": (_manager_http(idle_timeout=TIMER), ()),
    "connection duration": (_manager_http(max_connection_duration=TIMER), ()),
    "drain": (put(connection_manager, drain_timeout=TIMER), ()),
    "headers": (put(connection_manager, request_headers_timeout=TIMER), ()),
    "cluster connection duration": (_pool_http(max_connection_duration=TIMER), ()),
}
"""What is set, and which answers it cuts; `grpc-timeout` where the client sends that header."""


def edited(name):
    config = copy.deepcopy(DEFAULT)
    CASES[name][0](config)
    return config


def all_of_them(engine: str):
    """One Envoy with a listener and a cluster for each case, without Lodestar."""
    listeners, clusters = [], []
    for name in CASES:
        config = edited(name)
        del connection_manager(config)["access_log"]
        connection_manager(config)["http_filters"] = http_filters(config)[2:]
        action(config)["cluster"] = name
        cluster = pool(config) | {"name": name, "connect_timeout": "5s"}
        for part in ("health_checks", "outlier_detection", "load_balancing_policy"):
            del cluster[part]
        cluster["load_assignment"] = {"cluster_name": name}
        _set_endpoints(cluster, [engine])
        listener = config["static_resources"]["listeners"][0]
        socket = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        listeners.append(listener | {"name": name, "address": socket})
        clusters.append(cluster)
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    return {"admin": admin, "static_resources": {"listeners": listeners, "clusters": clusters}}


async def _answer(request: web.Request) -> web.StreamResponse:
    kind = request.path.strip("/")
    if kind == WHOLE:
        await asyncio.sleep(ANSWER_S)
        return web.Response(text="x")
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(int(ANSWER_S / EVERY_S)):
        await asyncio.sleep(EVERY_S)
        if kind == CHUNKS and request.transport is not None:
            await response.write(b"x")
    await response.write(b"x")
    return response


async def _is_cut(client: aiohttp.ClientSession, port: int, kind: str) -> bool:
    try:
        url = f"http://127.0.0.1:{port}/{kind}"
        async with client.post(url, data=b"{}", headers=ASKED) as response:
            await response.read()
            return response.status != 200
    except aiohttp.ClientError:
        return True


@pytest.fixture
async def engine():
    app = web.Application()
    app.router.add_post("/{kind}", _answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.long
async def test_the_timers_that_cut_answers_are_known(engine, tmp_path):
    async with (
        EnvoyProcess(all_of_them(engine), tmp_path) as envoy,
        aiohttp.ClientSession() as client,
    ):

        async def ports():
            page = json.loads(await envoy.admin("/listeners?format=json"))
            statuses = page.get("listener_statuses", [])
            found = {
                s["name"]: s["local_address"]["socket_address"]["port_value"] for s in statuses
            }
            return found if len(found) == len(CASES) else None

        port_of = await until(ports)
        asked = [(name, kind) for name in CASES for kind in (WHOLE, SILENT, CHUNKS)]
        cut = await asyncio.gather(*(_is_cut(client, port_of[n], k) for n, k in asked))

    seen = {
        name: tuple(k for (n, k), c in zip(asked, cut, strict=True) if n == name and c)
        for name in CASES
    }
    assert seen == {name: cuts for name, (_, cuts) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_doctor_names_a_timer_where_it_cuts_answers(name):
    root = Node(edited(name), "envoy.yaml", kind=BOOTSTRAP)
    faults = list(answer_timers(subject_of(read_resources(root, DEFAULT_ENVOY_FILE))))

    assert bool(faults) == bool(CASES[name][1])
