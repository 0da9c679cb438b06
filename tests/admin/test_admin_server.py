import re
from contextlib import asynccontextmanager

import aiohttp
import pytest

from lodestar_extproc.admin.history import PoolHistory
from lodestar_extproc.admin.server import AdminServer
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.events.change import ChangeKind
from lodestar_extproc.gain.compared import Gain
from metrics_world import World


class Admin:
    """A server with its world behind it, and a client before it."""

    def __init__(self, session: aiohttp.ClientSession, server: AdminServer, world: World, url: str):
        self.session, self.server, self.world, self.url = session, server, world, url
        self.events = server._events

    async def get(self, path: str):
        async with self.session.get(self.url + path) as response:
            body = await response.read()
            kind = response.content_type
            return response.status, (await response.json() if "json" in kind else body.decode())


@asynccontextmanager
async def admin(n: int = 3, **settings):
    world = World(n, **settings)
    server = AdminServer(world.metrics, lambda: [world.view()], clock=lambda: world.now_s)
    world.router.listeners.add(server.decisions)
    port = await server.start("127.0.0.1:0")
    try:
        async with aiohttp.ClientSession() as session:
            yield Admin(session, server, world, f"http://127.0.0.1:{port}")
    finally:
        await server.stop()


async def test_ready_only_while_serving():
    async with admin() as it:
        assert await it.get("/ready") == (503, {"ready": False, "reasons": ["starting"]})
        it.server.set_ready(ready=True)
        assert await it.get("/ready") == (200, {"ready": True, "reasons": []})
        it.server.set_ready(ready=False)
        assert await it.get("/ready") == (503, {"ready": False, "reasons": ["draining"]})


async def test_a_pool_whose_endpoints_are_all_down_says_so_and_goes_on():
    async with admin() as it:
        it.server.set_ready(ready=True)
        fleet = it.world.router.fleet
        for endpoint in fleet.endpoints:
            for _ in range(2):
                fleet.record_probe(endpoint.address, False, 0.0)
        status, answer = await it.get("/ready")

    assert (status, answer["ready"]) == (200, True)
    assert answer["reasons"] == ["all 3 endpoints of pool pool are out: 3 down"]


async def test_an_empty_pool_is_not_ready():
    async with admin(0) as it:
        it.server.set_ready(ready=True)

        status, answer = await it.get("/ready")
        assert status == 503
        assert answer["reasons"] == ["pool pool has no endpoint"]


async def test_alive_whatever_the_phase():
    async with admin() as it:
        assert (await it.get("/healthz"))[0] == 200


async def test_metrics_are_prometheus_text():
    async with admin() as it:
        it.world.serve()
        async with it.session.get(f"{it.url}/metrics") as response:
            assert response.content_type == "text/plain"
            assert "version=" in response.headers["Content-Type"]
            assert "lodestar_decisions_total" in await response.text()


async def test_endpoints_show_load_and_learning_and_null_where_unknown():
    async with admin() as it:
        address = it.world.scraped(running_requests=2.0)
        it.world.decide()

        status, state = await it.get("/endpoints")
        [pool] = state["pools"]
        [endpoint] = [e for e in pool["endpoints"] if e["address"] == address]
        assert status == 200
        assert state["phase"] == "starting"
        assert pool["open_decisions"] == 1
        assert pool["learner"]["state"] == "burn_in"
        assert sum(e["prefill_requests"] for e in pool["endpoints"]) == 1
        assert endpoint["running_requests"] == 2
        assert endpoint["waiting_requests"] is None
        assert endpoint["scrapes_failed"] == 2
        assert endpoint["last_scrape_failure"] == "refused"


async def test_decisions_are_limited():
    async with admin(policy="random") as it:
        it.world.serve(60)

        assert len((await it.get("/decisions"))[1]["decisions"]) == 50
        assert len((await it.get("/decisions?limit=3"))[1]["decisions"]) == 3
        assert (await it.get("/decisions?limit=0"))[1]["decisions"] == []
        assert len((await it.get("/decisions?limit=999999999"))[1]["decisions"]) == 60


@pytest.mark.parametrize("limit", ["-1", "x", "1.5", "", "9" * 30, "%C2%B2"])
async def test_an_impossible_limit_is_told(limit):
    async with admin() as it:
        status, answer = await it.get(f"/decisions?limit={limit}")

    assert status == 400
    assert "limit is a number" in answer["error"]


async def test_a_decision_is_explained_by_either_id():
    async with admin(policy="random") as it:
        decision = it.world.decide("request-1")

        for any_id in (decision.decision_id, "request-1"):
            status, answer = await it.get(f"/explain/{any_id}")
            assert status == 200
            assert decision.addresses[0] in answer["explanation"]


async def test_an_unknown_id_is_not_found():
    async with admin() as it:
        status, answer = await it.get("/explain/nobody")

    assert status == 404
    assert "not among the last" in answer["error"]


async def test_predictions_are_json_too():
    async with admin(burn_in_samples=1) as it:
        it.world.serve(30)

        decisions = (await it.get("/decisions?limit=1"))[1]["decisions"]
        assert decisions[0]["predicted_ttft_s"] > 0


async def test_the_page_asks_nobody_else_and_runs_nothing_of_others():
    async with admin() as it, it.session.get(it.url) as response:
        page = await response.text()
        policy = response.headers["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert re.findall(r"(?:src|href)=\"(?!data:)([^\"#]+)\"", page) == [
        *("/uplot.css", "/uplot.js", "/charts.js"),
        *("/events", "/endpoints", "/decisions", "/metrics", "/ready"),
    ]
    assert "innerHTML" not in page
    for path in ("/endpoints", "/decisions", "/explain/"):
        assert path in page


async def test_nothing_can_be_changed():
    async with admin() as it:
        for path in ("/endpoints", "/decisions", "/metrics"):
            async with it.session.post(it.url + path) as response:
                assert response.status == 405


async def test_an_address_in_use_is_an_error():
    async with admin() as it:
        other = AdminServer(it.world.metrics, list)
        with pytest.raises(OSError, match="in use"):
            await other.start(it.url.removeprefix("http://"))
        await other.stop()


async def test_an_endpoint_without_scrapes_is_shown():
    async with admin() as it:
        it.world.router.set_endpoints([Endpoint("10.0.0.9:8000")])

        [pool] = (await it.get("/endpoints"))[1]["pools"]
        assert [e["scrapes_succeeded"] for e in pool["endpoints"]] == [0]


async def test_an_ejection_of_seconds_does_not_unready_the_service():
    async with admin(1) as it:
        it.server.set_ready(ready=True)
        (endpoint,) = it.world.router.fleet.endpoints
        it.world.router.fleet.health.failed(endpoint.address, it.world.now_s)

        assert (await it.get("/ready"))[0] == 200


async def test_events_are_shown_newest_first_from_a_number_on():
    async with admin() as it:
        for text in ("first", "second", "third"):
            it.events.tell(ChangeKind.DRIFT, text, pool="pool", endpoint="10.0.0.1:8000")

        _, everything = await it.get("/events")
        _, newer = await it.get("/events?since=2")
        _, one = await it.get("/events?limit=1")
    assert [event["text"] for event in everything["events"]] == ["third", "second", "first"]
    assert everything["events"][0]["event"] == "drift"
    assert everything["events"][0]["severity"] == "warning"
    assert newer == one


@pytest.mark.parametrize("query", ["limit=x", "since=-1", "since=%C2%B2"])
async def test_an_impossible_number_of_events_is_told(query):
    async with admin() as it:
        status, answer = await it.get(f"/events?{query}")

    assert status == 400
    assert f"{query.partition('=')[0]} is a number" in answer["error"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/uplot.js", "text/javascript"),
        ("/uplot.css", "text/css"),
        ("/charts.js", "text/javascript"),
    ],
)
async def test_the_page_brings_its_charts_along(path, kind):
    async with admin() as it, it.session.get(it.url + path) as response:
        assert (response.status, response.content_type) == (200, kind)
        assert len(await response.read()) > 1000


async def test_gains_and_history_are_json_by_pool():
    gain = Gain("least_request", "shadow", 300, 0.5, 1.0, 2.0, 0.5, 0.4, 0.6)
    async with admin() as it:
        it.server._gains = lambda: {"pool": [gain, Gain("random", "shadow", 0, float("nan"), 1.0)]}
        it.server.histories["pool"] = PoolHistory()
        _, gains = await it.get("/gain")
        _, history = await it.get("/history")

    known, unknown = gains["gains"]["pool"]
    assert (known["ratio"], known["verdict"]) == (0.5, "the decisions made are 50% faster")
    assert (unknown["ratio"], unknown["agreement_ratio"]) == (None, None)
    assert history == {"history": {"pool": []}}


async def test_version_uptime_and_settings_in_force_are_told():
    async with admin(policy="random") as it:
        it.world.now_s += 61.0
        _, state = await it.get("/endpoints")

    assert state["uptime_s"] == 61.0
    assert state["version"]
    settings = state["pools"][0]["settings"]
    assert settings["policy"] == "random"
    assert next(iter(settings)) == "policy"  # what differs from the default comes first
