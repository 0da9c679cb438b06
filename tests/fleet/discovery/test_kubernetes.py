"""Endpoints from a Kubernetes API server, through the real client library."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from builders import a_pool
from fake_api_server import (
    ALPHA_POOLS,
    NODES,
    PODS,
    POOLS,
    SLICES,
    alpha_pool_parts,
    an_api_server,
    connected,
    node_parts,
    pod_parts,
    pool_parts,
    slice_parts,
)
from lodestar_extproc.config import (
    EndpointSettings,
    InferencePoolRef,
    KubernetesSource,
    PodSelector,
    ServiceRef,
)
from lodestar_extproc.config.upstream import Transport, Transports
from lodestar_extproc.encryption import UpstreamTls
from lodestar_extproc.fleet.discovery.kubernetes import (
    NotConnected,
    collection,
    watch_kubernetes,
)
from lodestar_extproc.fleet.discovery.kubernetes.api import connect
from waiting import until

POOL = InferencePoolRef("vllm", "default")


@pytest.fixture
async def server():
    async with an_api_server() as running:
        running.put(NODES, "node-1", **node_parts())
        yield running


@asynccontextmanager
async def watching(server, watched=POOL, **defaults):
    """The answers, as they come."""
    source = KubernetesSource(watched, EndpointSettings(**defaults))
    watch = watch_kubernetes(a_pool(), source, connect=lambda: connected(server))
    async with aclosing(watch):
        yield Answers(watch)


class Answers:
    def __init__(self, watch):
        self._watch = watch

    async def next(self):
        async with asyncio.timeout(60):
            return await anext(self._watch)

    async def addresses(self):
        return sorted(endpoint.address for endpoint in await self.next())

    async def nothing_for(self, duration_s):
        """No answer comes; the watch goes on."""
        waiting = asyncio.ensure_future(anext(self._watch))
        done, _ = await asyncio.wait([waiting], timeout=duration_s)
        assert not done
        self._watch = _after(waiting, self._watch)


async def _after(first, rest):
    yield await first
    async for answer in rest:
        yield answer


# -- InferencePool ---


async def test_every_target_port_of_every_ready_pod_is_an_endpoint(server):
    server.put(POOLS, "vllm", **pool_parts(8000, 8001))
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    server.put(PODS, "b", **pod_parts("10.0.0.2", ready=False))
    server.put(PODS, "c", **pod_parts("10.0.0.3", leaving=True))
    server.put(PODS, "d", **pod_parts("10.0.0.4", labels={"app": "other"}))
    server.put(PODS, "e", **pod_parts("fd00::5"))

    async with watching(server) as answers:
        assert await answers.addresses() == [
            "10.0.0.1:8000",
            "10.0.0.1:8001",
            "[fd00::5]:8000",
            "[fd00::5]:8001",
        ]


async def test_pods_come_and_go_at_once(server):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    async with watching(server) as answers:
        assert await answers.addresses() == ["10.0.0.1:8000"]
        await until(lambda: server.watches(PODS))

        server.put(PODS, "b", **pod_parts("10.0.0.2"))
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.2:8000"]
        server.put(PODS, "a", **pod_parts("10.0.0.1", ready=False))
        assert await answers.addresses() == ["10.0.0.2:8000"]
        server.put(PODS, "a", **pod_parts("10.0.0.1"))
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.2:8000"]
        server.put(PODS, "b", **pod_parts("10.0.0.2", leaving=True))
        assert await answers.addresses() == ["10.0.0.1:8000"]
        server.put(PODS, "c", **pod_parts("10.0.0.3"))
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.3:8000"]
        server.put(PODS, "c", **pod_parts("10.0.0.3", labels={"app": "other"}))
        assert await answers.addresses() == ["10.0.0.1:8000"]
        server.delete(PODS, "a")
        assert await answers.addresses() == []


async def test_pool_that_selects_other_pods_or_ports_is_followed(server):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    server.put(PODS, "b", **pod_parts("10.0.0.2", labels={"app": "sglang"}))
    async with watching(server) as answers:
        assert await answers.addresses() == ["10.0.0.1:8000"]
        await until(lambda: server.watches(POOLS))

        server.put(POOLS, "vllm", **pool_parts(9000))
        assert await answers.addresses() == ["10.0.0.1:9000"]
        server.put(POOLS, "vllm", **pool_parts(9000, labels={"app": "sglang"}))
        assert await answers.addresses() == ["10.0.0.2:9000"]
        server.delete(POOLS, "vllm")
        assert await answers.addresses() == []
        server.put(POOLS, "vllm", **pool_parts())
        assert await answers.addresses() == ["10.0.0.1:8000"]


async def test_only_serving_ports_are_endpoints_and_other_roles_are_asked_there(server):
    server.put(POOLS, "vllm", **pool_parts((8000, "Serving"), (9100, "Metrics"), (9200, "Health")))
    server.put(PODS, "a", **pod_parts("10.0.0.1"))

    async with watching(server) as answers:
        (endpoint,) = await answers.next()

    assert endpoint.address == "10.0.0.1:8000"
    assert endpoint.metrics_url == "http://10.0.0.1:9100/metrics"
    assert endpoint.health_url == "http://10.0.0.1:9200/health"


@pytest.mark.parametrize("labels", [{}, {"app": "nobody"}])
async def test_pool_that_selects_nothing_has_no_endpoints(server, labels):
    server.put(POOLS, "vllm", **pool_parts(labels=labels))
    server.put(PODS, "a", **pod_parts("10.0.0.1"))

    async with watching(server) as answers:
        assert await answers.addresses() == []


async def test_pool_that_is_not_there_yet_has_no_endpoints_and_is_awaited(server, caplog):
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    async with watching(server) as answers:
        assert await answers.addresses() == []
        assert "InferencePool default/vllm is not there" in caplog.text
        await until(lambda: server.watches(POOLS))

        server.put(POOLS, "vllm", **pool_parts())
        assert await answers.addresses() == ["10.0.0.1:8000"]


async def test_only_the_named_pool_and_the_selected_pods_are_asked_for(server):
    server.put(POOLS, "vllm", **pool_parts())
    async with watching(server) as answers:
        await answers.next()
        await until(lambda: server.watches(PODS))

    assert {q["fieldSelector"] for _, q in server.asked if _ == POOLS} == {"metadata.name=vllm"}
    assert {q["labelSelector"] for _, q in server.asked if _ == PODS} == {"app=vllm"}
    assert {path for path, _ in server.asked} == {POOLS, PODS}


# -- what goes wrong ---


async def test_api_server_that_goes_away_changes_nothing_until_it_is_back(server, caplog):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    async with watching(server) as answers:
        assert await answers.addresses() == ["10.0.0.1:8000"]
        await until(lambda: server.watches(PODS))

        await server.go()
        await answers.nothing_for(0.5)
        server.put(PODS, "b", **pod_parts("10.0.0.2"))
        server.delete(PODS, "a")
        await server.come()

        assert (await answers.addresses())[-1] == "10.0.0.2:8000"
    assert "what is known stays" in caplog.text


async def test_api_server_that_is_away_at_the_start_is_awaited(server):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    await server.go()
    async with watching(server) as answers:
        await answers.nothing_for(0.3)
        await server.come()

        assert await answers.addresses() == ["10.0.0.1:8000"]


@pytest.mark.parametrize("as_event", [True, False])
async def test_version_that_is_gone_is_listed_anew(server, as_event):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    server.gone_as_event = as_event
    async with watching(server) as answers:
        assert await answers.addresses() == ["10.0.0.1:8000"]
        await until(lambda: server.watches(PODS))

        server.put(PODS, "b", **pod_parts("10.0.0.2"))
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.2:8000"]
        await server.go()
        server.delete(PODS, "a")
        server.forget()
        await server.come()

        assert await answers.addresses() == ["10.0.0.2:8000"]
        assert len(server.lists(PODS)) == 2


async def test_bookmark_moves_the_version_on(server):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    server.bookmark_s = 0.05
    async with watching(server) as answers:
        await answers.next()
        await until(lambda: server.watches(PODS))
        # Others change; this watch hears of it by bookmarks only.
        server.put("/elsewhere", "x")
        told = server.version
        await asyncio.sleep(0.3)
        before = len(server.watches(PODS))
        server.cut()
        await until(lambda: len(server.watches(PODS)) > before)

        assert server.watches(PODS)[-1]["resourceVersion"] == str(told)
        assert len(server.lists(PODS)) == 1


async def test_watch_that_breaks_goes_on_where_it_was(server):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    async with watching(server) as answers:
        await answers.next()
        await until(lambda: server.watches(PODS))

        server.cut()
        server.put(PODS, "b", **pod_parts("10.0.0.2"))

        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.2:8000"]
        assert len(server.lists(PODS)) == 1


@pytest.mark.parametrize("line", [b"no json", b"[]", b'{"type": "MODIFIED", "object": 3}', b"{}"])
async def test_garbage_in_a_watch_is_survived(server, line):
    server.put(POOLS, "vllm", **pool_parts())
    async with watching(server) as answers:
        await answers.next()
        await until(lambda: server.watches(PODS))

        server.say(line)
        server.put(PODS, "a", **pod_parts("10.0.0.1"))

        assert await answers.addresses() == ["10.0.0.1:8000"]


@pytest.mark.parametrize(
    ("status", "hint"),
    [(403, "bind a Role"), (404, "custom resource definition"), (500, "what is known stays")],
)
async def test_refusal_says_what_to_do_and_is_tried_again(server, caplog, status, hint):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    server.refuse[POOLS] = status
    async with watching(server) as answers:
        await answers.nothing_for(0.3)
        assert hint in caplog.text
        server.refuse.clear()

        assert await answers.addresses() == ["10.0.0.1:8000"]


async def test_refusal_later_keeps_the_endpoints(server):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    async with watching(server) as answers:
        await answers.next()
        await until(lambda: server.watches(PODS))
        server.refuse[""] = 403
        server.cut()

        await answers.nothing_for(0.5)
        server.refuse.clear()
        server.put(PODS, "b", **pod_parts("10.0.0.2"))
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.2:8000"]


async def test_many_pods_are_listed_in_pages(server):
    server.page_objects = 7
    server.put(POOLS, "vllm", **pool_parts())
    for i in range(30):
        server.put(PODS, f"p{i}", **pod_parts(f"10.0.0.{i}"))

    async with watching(server) as answers:
        assert len(await answers.next()) == 30
    assert len(server.lists(PODS)) == 5


async def test_cancelled_watch_ends_at_once_and_leaves_nothing(server):
    server.put(POOLS, "vllm", **pool_parts())
    async with watching(server) as answers:
        await answers.next()
        waiting = asyncio.ensure_future(answers.next())
        await asyncio.sleep(0.05)
        waiting.cancel()
        async with asyncio.timeout(60):
            with pytest.raises(asyncio.CancelledError):
                await waiting


# -- pods without a pool, and Services ---


async def test_selector_and_ports_do_without_a_pool(server):
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    selector = PodSelector("app=vllm", (8000, 8001), "default")

    async with watching(server, selector) as answers:
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.1:8001"]
    assert {path for path, _ in server.asked} >= {PODS}
    assert POOLS not in {path for path, _ in server.asked}


async def test_ready_endpoints_of_a_services_slices_come_and_go(server):
    ready = {"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "nodeName": "node-1"}
    unknown = {"addresses": ["10.0.0.2"], "conditions": {}}
    unready = {"addresses": ["10.0.0.3"], "conditions": {"ready": False}}
    leaving = {"addresses": ["10.0.0.4"], "conditions": {"ready": True, "terminating": True}}
    server.put(SLICES, "vllm-1", **slice_parts(ready, unready, leaving))
    server.put(SLICES, "vllm-2", **slice_parts(unknown, ready))
    server.put(SLICES, "other", **slice_parts(ready, service="other", ports=(("http", 1),)))
    async with watching(server, ServiceRef("vllm", "default")) as answers:
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.2:8000"]
        await until(lambda: server.watches(SLICES))

        server.put(SLICES, "vllm-1", **slice_parts(unready))
        server.delete(SLICES, "vllm-2")
        assert (await answers.addresses())[-1:] in (["10.0.0.2:8000"], [])


@pytest.mark.parametrize(
    ("port", "expected"), [("http", ["10.0.0.1:8000"]), ("9400", ["10.0.0.1:9400"]), ("", [])]
)
async def test_service_with_several_ports_needs_one_named(server, caplog, port, expected):
    ready = {"addresses": ["10.0.0.1"], "conditions": {"ready": True}}
    server.put(SLICES, "a", **slice_parts(ready, ports=(("http", 8000), ("metrics", 9400))))

    async with watching(server, ServiceRef("vllm", "default", port)) as answers:
        assert await answers.addresses() == expected
    assert ("name the one that serves, as vllm:http" in caplog.text) == (not port)


@pytest.mark.parametrize("port", ["80", "htp"])
async def test_a_port_that_the_service_does_not_have_is_told_with_those_it_has(
    server, caplog, port
):
    ready = {"addresses": ["10.0.0.1"], "conditions": {"ready": True}}
    server.put(SLICES, "a", **slice_parts(ready))
    async with watching(server, ServiceRef("vllm", "default", port)) as answers:
        assert await answers.addresses() == []

    assert "has the ports http, which pods serve as 8000" in caplog.text
    assert "as vllm:http" in caplog.text


async def test_pods_are_asked_as_the_cluster_beside_them_is_reached(server):
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    tls = UpstreamTls(server_name="engines")
    pool = replace(a_pool(), transports=Transports(Transport(tls)))
    source = KubernetesSource(PodSelector("app=vllm", (8000,), "default"))
    watch = watch_kubernetes(pool, source, connect=lambda: connected(server))
    async with aclosing(watch):
        [endpoint] = await Answers(watch).next()

    assert endpoint.metrics_url == "https://10.0.0.1:8000/metrics"
    assert endpoint.tls == tls


# -- what llm-d and kserve say of pods and pools ---


@pytest.mark.parametrize(
    ("role", "serves"),
    [
        ("prefill", False),
        ("encode", False),
        ("encode-prefill", False),
        ("Prefill ", False),
        ("decode", True),
        ("both", True),
        ("prefill-decode", True),
        ("encode-prefill-decode", True),
        ("all", True),
        ("", True),
        ("ours", True),
    ],
)
async def test_pods_that_only_help_those_that_decode_are_no_endpoints(server, role, serves):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    server.put(PODS, "b", **pod_parts("10.0.0.2", labels={"llm-d.ai/role": role}))
    async with watching(server) as answers:
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.2:8000"][: 1 + serves]


async def test_a_pod_that_changes_its_role_comes_and_goes(server):
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1", labels={"llm-d.ai/role": "prefill"}))
    server.put(PODS, "b", **pod_parts("10.0.0.2", labels={"llm-d.ai/role": "decode"}))
    async with watching(server) as answers:
        assert await answers.addresses() == ["10.0.0.2:8000"]
        await until(lambda: server.watches(PODS))
        server.put(PODS, "a", **pod_parts("10.0.0.1", labels={"llm-d.ai/role": "both"}))
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.2:8000"]


async def test_where_no_ready_pod_serves_it_says_why_once(server, caplog):
    server.put(POOLS, "vllm", **pool_parts())
    for name in "abc":
        server.put(PODS, name, **pod_parts("10.0.0.1", labels={"llm-d.ai/role": "prefill"}))
    async with watching(server) as answers:
        assert await answers.addresses() == []
        await until(lambda: server.watches(PODS))
        server.put(PODS, "d", **pod_parts("10.0.0.4", labels={"llm-d.ai/role": "prefill"}))
        server.put(PODS, "e", **pod_parts("10.0.0.5", labels={"llm-d.ai/role": "decode"}))
        assert await answers.addresses() == ["10.0.0.5:8000"]

    assert caplog.text.count("are ready and none is an endpoint") == 1
    assert "llm-d.ai/role" in caplog.text


LLM_D, GAIE = "llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports"


@pytest.mark.parametrize(
    ("annotations", "ports"),
    [
        ({}, [8000, 8001, 8002]),
        ({LLM_D: "8001"}, [8001]),
        ({GAIE: "8000,8002"}, [8000, 8002]),
        ({LLM_D: " 8000 , 8001,", GAIE: "8002"}, [8000, 8001]),
        ({LLM_D: "9999,x,-1,8002"}, [8002]),
        ({LLM_D: ""}, []),
        ({LLM_D: "none"}, []),
    ],
)
async def test_a_pod_serves_on_its_active_ports_only(server, annotations, ports):
    server.put(POOLS, "vllm", **pool_parts(8000, 8001, 8002))
    server.put(PODS, "a", **pod_parts("10.0.0.1", annotations=annotations))
    async with watching(server) as answers:
        assert await answers.addresses() == [f"10.0.0.1:{port}" for port in ports]


async def test_active_ports_that_change_are_followed(server):
    server.put(POOLS, "vllm", **pool_parts(8000, 8001))
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    async with watching(server) as answers:
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.1:8001"]
        await until(lambda: server.watches(PODS))
        server.put(PODS, "a", **pod_parts("10.0.0.1", annotations={LLM_D: "8001"}))
        assert await answers.addresses() == ["10.0.0.1:8001"]


async def test_pool_of_the_first_alpha_is_read(server):
    server.put(ALPHA_POOLS, "vllm", **alpha_pool_parts(8080))
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    server.put(PODS, "b", **pod_parts("10.0.0.2", labels={"app": "other"}))
    pool = InferencePoolRef("vllm", "default", "inference.networking.x-k8s.io")
    async with watching(server, pool) as answers:
        assert await answers.addresses() == ["10.0.0.1:8080"]


async def test_ports_are_named_as_pods_name_them(server):
    server.put(PODS, "a", **pod_parts("10.0.0.1", ports={"http": 8000, "metrics": 9400}))
    server.put(PODS, "b", **pod_parts("10.0.0.2", ports={"http": 8100}))
    server.put(PODS, "c", **pod_parts("10.0.0.3"))
    async with watching(server, PodSelector("app=vllm", ("http",), "default")) as answers:
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.2:8100"]


@pytest.mark.parametrize("status", [403, 405])
async def test_what_may_not_be_watched_is_listed_every_few_seconds_and_told_once(
    server, caplog, monkeypatch, status
):
    monkeypatch.setattr(collection, "POLL_S", 0.4)
    caplog.set_level(logging.INFO)
    server.put(POOLS, "vllm", **pool_parts())
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    server.refuse_watch = status
    async with watching(server) as answers:
        assert await answers.addresses() == ["10.0.0.1:8000"]
        server.put(PODS, "b", **pod_parts("10.0.0.2"))
        assert await answers.addresses() == ["10.0.0.1:8000", "10.0.0.2:8000"]
        n_before = len(server.lists(PODS))
        await until(lambda: len(server.lists(PODS)) >= n_before + 4)

    for path in (PODS, POOLS):
        assert len(server.watches(path)) == 1
        assert caplog.text.count(f"Kubernetes: {path}") == 1
    assert "answers again" not in caplog.text


async def test_a_watch_that_comes_to_be_allowed_is_taken_up(server):
    server.put(PODS, "a", **pod_parts("10.0.0.1"))
    server.refuse_watch = 403
    changed = asyncio.Event()
    async with connected(server) as api:
        pods = collection.Collection(
            api, PODS, changed.set, sleep=lambda _: asyncio.sleep(0.01), resync_s=0.2
        )
        running = asyncio.ensure_future(pods.run())
        await until(lambda: len(server.lists(PODS)) > 2)
        server.refuse_watch = 0
        await until(lambda: len(server.watches(PODS)) > 1)
        await until(lambda: pods.synced)
        server.put(PODS, "b", **pod_parts("10.0.0.2"))
        await until(lambda: set(pods.objects) == {"a", "b"})
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# -- accelerator, engine, settings ---


async def endpoint_of(server, watched=POOL, **defaults):
    server.put(POOLS, "vllm", **pool_parts())
    async with watching(server, watched, **defaults) as answers:
        (endpoint,) = await answers.next()
        return endpoint


async def test_accelerator_is_the_nodes(server):
    server.put(NODES, "gpu-7", **node_parts(**{"nvidia.com/gpu.product": "NVIDIA-L4"}))
    server.put(PODS, "a", **pod_parts("10.0.0.1", node="gpu-7"))

    assert (await endpoint_of(server)).accelerator == "NVIDIA-L4"


async def test_accelerators_are_counted(server):
    server.put(NODES, "gpu-7", **node_parts(**{"nvidia.com/gpu.product": "NVIDIA-L4"}))
    server.put(PODS, "a", **pod_parts("10.0.0.1", node="gpu-7", limits={"nvidia.com/gpu": "4"}))

    assert (await endpoint_of(server)).accelerator == "NVIDIA-L4x4"


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"lodestar/accelerator": "l40s"}},
        {"annotations": {"lodestar/accelerator": "l40s"}},
        {"labels": {"nvidia.com/gpu.product": "l40s"}},
        {"node_selector": {"cloud.google.com/gke-accelerator": "l40s"}},
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {
                                        "key": "karpenter.k8s.aws/instance-gpu-name",
                                        "operator": "In",
                                        "values": ["l40s"],
                                    }
                                ]
                            }
                        ]
                    }
                }
            }
        },
    ],
)
async def test_accelerator_that_the_pod_names_needs_no_node(server, changes):
    server.put(PODS, "a", **pod_parts("10.0.0.1", **changes))

    assert (await endpoint_of(server)).accelerator == "l40s"
    assert not [path for path, _ in server.asked if path.startswith(NODES)]


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_node_that_cannot_be_asked_leaves_the_default(server, caplog, status):
    server.refuse[f"{NODES}/node-1"] = status
    server.put(PODS, "a", **pod_parts("10.0.0.1"))

    assert (await endpoint_of(server)).accelerator == "default"
    assert ("bind a ClusterRole that allows to get nodes" in caplog.text) == (status == 403)


async def test_slices_learn_the_accelerator_from_the_node(server):
    server.put(NODES, "gpu-7", **node_parts(**{"nvidia.com/gpu.product": "NVIDIA-L4"}))
    ready = {"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "nodeName": "gpu-7"}
    server.put(SLICES, "a", **slice_parts(ready))

    assert (await endpoint_of(server, ServiceRef("vllm", "default"))).accelerator == "NVIDIA-L4"


@pytest.mark.parametrize(
    ("label", "engine"),
    [
        ("vllm", "vllm"),
        ("sglang", "sglang"),
        ("trtllm-serve", "trtllm"),
        ("triton-tensorrt-llm", "triton"),
        ("triton", "triton"),
        ("another", "vllm"),
    ],
)
async def test_engine_is_the_labels(server, label, engine):
    server.put(PODS, "a", **pod_parts("10.0.0.1", labels={"llm-d.ai/engine-type": label}))

    assert (await endpoint_of(server)).engine == engine


async def test_a_pods_own_settings_beat_the_files_and_bad_ones_are_left_out(server, caplog):
    annotations = {
        "lodestar/kv-capacity-tokens": "123456",
        "lodestar/prefix-caching": "false",
        "lodestar/metrics-path": "/prometheus/metrics",
        "lodestar/metrics-port": "70000",
        "lodestar/colour": "red",
    }
    server.put(PODS, "a", **pod_parts("10.0.0.1", annotations=annotations))

    found = await endpoint_of(server, token_budget=8192.0, kv_capacity_tokens=1.0)

    assert (found.kv_capacity_tokens, found.prefix_caching) == (123456, False)
    assert (found.token_budget, found.metrics_url) == (
        8192.0,
        "http://10.0.0.1:8000/prometheus/metrics",
    )
    assert "pod a: lodestar/metrics-port is left out" in caplog.text
    assert "pod a: lodestar/colour is left out: colour: unknown" in caplog.text


# -- credentials ---


async def test_kubeconfig_leads_to_the_server_with_its_token(server, tmp_path, monkeypatch):
    server.token = "s3cret"
    server.put(NODES, "node-1", **node_parts(a="b"))
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}],
        "users": [{"name": "u", "user": {"token": "s3cret"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(
        "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path)
    )

    async with connect() as api:
        assert (await api.get(f"{NODES}/node-1"))["metadata"]["labels"] == {"a": "b"}


async def test_without_a_cluster_it_says_what_is_needed(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    with pytest.raises(NotConnected, match="service account"):
        async with connect():
            pass


async def test_node_that_answers_late_is_awaited(server):
    server.put(NODES, "gpu-7", **node_parts(**{"nvidia.com/gpu.product": "NVIDIA-L4"}))
    server.put(PODS, "a", **pod_parts("10.0.0.1", node="gpu-7"))
    server.refuse[f"{NODES}/gpu-7"] = 503
    server.put(POOLS, "vllm", **pool_parts())
    async with watching(server) as answers:
        answer = asyncio.ensure_future(answers.next())
        await until(lambda: [path for path, _ in server.asked if NODES in path])
        server.refuse.clear()
        (endpoint,) = await answer

    assert endpoint.accelerator == "NVIDIA-L4"
