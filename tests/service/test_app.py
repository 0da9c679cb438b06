"""The composed service: starts from an Envoy file, follows it, stops cleanly."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from builders import a_request, a_router
from in_the_way import IN_THE_WAY, everything, put_in_the_way
from learning_worlds import LinearWorld
from lodestar_extproc.config import read_envoy_config
from lodestar_extproc.learning.checkpoint import read_checkpoint, write_checkpoint
from lodestar_extproc.service.app import App
from lodestar_extproc.service.listen import listen_addresses
from lodestar_extproc.service.options import ServeOptions
from ports import a_port
from waiting import until

CONFIG = """
static_resources:
  clusters:
  - name: engines
    metadata: {{filter_metadata: {{lodestar: {settings}}}}}
    load_assignment:
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 9}}}}}}
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 10}}}}}}
"""


def written(tmp_path, **settings):
    path = tmp_path / "envoy.yaml"
    path.write_text(CONFIG.format(settings=json.dumps(settings)))
    return path


class Running:
    def __init__(self, path, **given) -> None:
        self.admin = f"127.0.0.1:{a_port()}"
        self.app = App(
            read_envoy_config(path),
            ServeOptions(("127.0.0.1:0",), admin=self.admin, drain_s=0.0, grace_s=0.1, **given),
        )

    async def __aenter__(self):
        self.task = asyncio.create_task(self.app.run())
        async with asyncio.timeout(60):
            # Not `/ready`: it says no again once the dead engines of these files were probed.
            while b'"phase":"serving"' not in (await self.get("/endpoints"))[1]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *_):
        self.app.stop()
        await self.task

    async def get(self, path):
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{self.admin}{path}") as response,
            ):
                return response.status, await response.read()
        except aiohttp.ClientError:
            return 0, b""

    async def policy_becomes(self, name):
        async with asyncio.timeout(60):
            while self.app.routers.get().settings.policy != name:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_good_change_of_settings_applies_and_a_bad_one_does_not(tmp_path):
    path = written(tmp_path, policy="least_request")
    async with Running(path) as running:
        router = running.app.routers.get()
        written(tmp_path, policy="no_such_policy")
        await asyncio.sleep(0.5)
        assert router.settings.policy == "least_request"

        written(tmp_path, policy="learned", predictor="bayesian_linear", scrape_interval_s=0.05)
        await running.policy_becomes("learned")
        assert running.app.routers.get() is router
        assert router.learner.predictor.name == "bayesian_linear"
        assert len(router.fleet.endpoints) == 2


async def test_what_was_learned_survives_a_restart(tmp_path):
    checkpoint = tmp_path / "learned.checkpoint"
    path = written(tmp_path, checkpoint_path=str(checkpoint))
    async with Running(path):
        pass
    assert checkpoint.exists()

    checkpoint.write_bytes(checkpoint.read_bytes()[:-5])
    async with Running(path) as running:
        assert running.app.routers.get().learner.status().n_samples == 0
    assert checkpoint.with_name("learned.checkpoint.bad").exists()


async def test_the_admin_server_shows_the_pool(tmp_path):
    async with Running(written(tmp_path)) as running:
        status, body = await running.get("/endpoints")
        addresses = [e["address"] for e in json.loads(body)["pools"][0]["endpoints"]]
        assert (status, addresses) == (200, ["127.0.0.1:9", "127.0.0.1:10"])
        assert b"lodestar_event_loop_lag_seconds" in (await running.get("/metrics"))[1]


async def test_endpoints_that_left_are_not_counted_under_the_names_of_others(tmp_path):
    async with Running(written(tmp_path, policy="round_robin"), alias_metrics=True) as running:

        async def ports_counted():
            _, page = await running.get("/metrics")
            return set(re.findall(rb'\nllm_d_epp_scheduler_attempts_total\{.*port="(\d+)"', page))

        router = running.app.routers.get()
        for number in range(4):
            router.route(a_request(), request_id=str(number), at_s=float(number))
        assert await ports_counted() == {b"9", b"10"}
        router.set_endpoints(router.fleet.endpoints[:1])
        async with asyncio.timeout(60):
            while await ports_counted() != {b"9"}:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


def test_where_to_listen_must_be_said_somewhere(tmp_path):
    with pytest.raises(ValueError, match="--listen"):
        listen_addresses(read_envoy_config(written(tmp_path)))


def serve(*arguments):
    command = [sys.executable, "-m", "lodestar_extproc", "serve", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_serve_ends_well_on_a_signal(tmp_path):
    path, port = written(tmp_path), a_port()
    process = serve(
        *("--envoy-config", str(path), "--listen", f"127.0.0.1:{port}"),
        *("--admin", "127.0.0.1:0", "--drain", "0", "--grace", "0"),
    )
    for line in process.stderr:
        if "serving Envoy" in line:
            process.send_signal(signal.SIGTERM)
            break
    _, rest = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "Traceback" not in rest


def test_sighup_reloads_the_configuration_and_does_not_end_the_service(tmp_path):
    path = written(tmp_path, policy="random")
    process = serve(
        *("--envoy-config", str(path), "--listen", f"127.0.0.1:{a_port()}"),
        *("--admin", "127.0.0.1:0", "--drain", "0", "--grace", "0"),
    )
    awaited = {"told to read the configuration again", "new configuration applied"}
    for line in process.stderr:
        if "serving Envoy" in line:
            written(tmp_path, policy="least_request")
            process.send_signal(signal.SIGHUP)
        # Whoever looks for changes may see this one before the signal is heard.
        awaited = {words for words in awaited if words not in line}
        if not awaited:
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert not awaited


def test_sighup_while_it_starts_does_not_end_the_service(tmp_path):
    starting = serve(
        *("--envoy-config", str(written(tmp_path)), "--listen", f"127.0.0.1:{a_port()}"),
        *("--admin", "127.0.0.1:0", "--drain", "0", "--grace", "0"),
    )
    while starting.poll() is None and not ignores_sighup(starting.pid):
        time.sleep(0.01)
    starting.send_signal(signal.SIGHUP)
    for line in starting.stderr:
        if "serving Envoy" in line:
            starting.send_signal(signal.SIGTERM)
            break
    starting.communicate(timeout=60)

    assert starting.returncode == 0


def ignores_sighup(pid) -> bool:
    """Whether the process has begun to see to its signals, as the kernel tells."""
    status = Path(f"/proc/{pid}/status").read_text()
    handled = [int(re.search(rf"{name}:\s*(\w+)", status)[1], 16) for name in ("SigIgn", "SigCgt")]
    return bool((handled[0] | handled[1]) >> (signal.SIGHUP - 1) & 1)


async def test_two_pools_that_name_one_checkpoint_do_not_overwrite_each_others(tmp_path, caplog):
    settings = json.dumps({"checkpoint_path": str(tmp_path / "learned")})
    one = CONFIG.format(settings=settings)
    second = one[one.index("  - name") :].replace("engines", "others")
    path = tmp_path / "envoy.yaml"
    path.write_text(one + second)
    async with Running(path) as running:
        for name, n_samples in (("engines", 5), ("others", 3)):
            LinearWorld().teach(running.app.routers.get(name).learner, n_samples)

    assert read_checkpoint(tmp_path / "learned", "engine")["n_learned"] == 5
    assert "pool others: checkpoint" in caplog.text
    assert "is that of pool engines" in caplog.text


async def test_dead_engines_are_told_in_the_log_at_events_and_by_ready(tmp_path, caplog):
    async with Running(written(tmp_path, health_interval_s=0.05)) as running:

        async def all_down() -> bool:
            return b'"all_down"' in (await running.get("/events"))[1]

        await until(all_down)
        status, ready = await running.get("/ready")
        events = json.loads((await running.get("/events"))[1])["events"]
    assert status == 200
    assert json.loads(ready)["reasons"] == ["all 2 endpoints of pool engines are out: 2 down"]
    assert [e["endpoint"] for e in events if e["event"] == "endpoint_down"] == [
        "127.0.0.1:10",
        "127.0.0.1:9",
    ]
    assert "pool engines: all 2 endpoints of pool engines are out: 2 down" in caplog.text


async def test_settings_applied_and_refused_are_events_with_what_changed(tmp_path):
    path = written(tmp_path, policy="least_request")
    async with Running(path) as running:

        async def told(text: bytes) -> bool:
            return text in (await running.get("/events"))[1]

        written(tmp_path, policy="no_such_policy")
        await until(lambda: told(b"no_such_policy"))
        written(tmp_path, policy="random")
        await until(lambda: told(b"policy: 'least_request' is now 'random'"))
        events = json.loads((await running.get("/events"))[1])["events"]
    kinds = [e["event"] for e in events if e["event"].startswith("settings")]
    assert kinds == ["settings_applied", "settings_refused"]


async def test_a_reload_says_what_needs_a_restart_and_applies_the_rest(tmp_path, caplog):
    path = written(tmp_path, policy="random")
    async with Running(path) as running:
        changes = {"journal_path": str(tmp_path / "journal"), "seed": 7}
        written(tmp_path, policy="least_request", **changes)
        await running.policy_becomes("least_request")
        settings = running.app.routers.get().settings
        assert (settings.journal_path, settings.seed) == (None, None)
        assert "pool engines needs a restart: journal_path, seed" in caplog.text
        wanted = {"applied": "1.0", "needs_restart": "1.0", "refused": "0.0"}

        async def is_counted() -> bool:
            page = (await running.get("/metrics"))[1].decode()
            counts = re.findall(
                r'^lodestar_config_reloads_total{result="(\w+)"} (.*)$', page, re.MULTILINE
            )
            return dict(counts) == wanted

        await until(is_counted)
    assert not (tmp_path / "journal").exists()


async def test_a_reload_keeps_learner_counts_and_open_decisions(tmp_path):
    path = written(tmp_path, policy="random")
    async with Running(path) as running:
        app, router = running.app, running.app.routers.get()
        before = (router.learner, router.fleet, app.pools()[0].scrapes["127.0.0.1:9"])
        router.route(a_request(), request_id="", at_s=time.monotonic())
        written(tmp_path, policy="least_request", scrape_interval_s=0.1)
        await running.policy_becomes("least_request")
        await asyncio.sleep(0.3)  # the tasks begin anew
        assert before == (router.learner, router.fleet, app.pools()[0].scrapes["127.0.0.1:9"])
        assert router.n_open == 1


async def test_another_checkpoint_is_taken_up_and_what_was_learned_is_kept_in_the_old(tmp_path):
    old, new = tmp_path / "old.checkpoint", tmp_path / "new.checkpoint"
    taught = LinearWorld()
    learner = a_router().learner
    taught.teach(learner, 30)
    write_checkpoint(new, "engine", learner.state())
    path = written(tmp_path, checkpoint_path=str(old))
    async with Running(path) as running:
        router = running.app.routers.get()
        taught.teach(router.learner, 5)
        written(tmp_path, checkpoint_path=str(new))
        async with asyncio.timeout(10):
            while router.learner.status().n_samples != 30:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert read_checkpoint(old, "engine")["n_learned"] == 5
    assert read_checkpoint(new, "engine")["n_learned"] == 30


@pytest.mark.parametrize("kind", IN_THE_WAY)
@pytest.mark.parametrize("at_start", [True, False])
async def test_whatever_is_where_states_are_to_be_it_stays_and_requests_are_served(
    tmp_path, caplog, kind, at_start
):
    folder = tmp_path / "states"
    folder.mkdir()
    named = {"checkpoint_path": str(folder / "learned"), "checkpoint_interval_s": 0.05}
    named["journal_path"] = str(folder / "journal")
    for name in ("learned", "journal"):
        put_in_the_way(folder / name, kind)
    before = everything(folder)
    path = written(tmp_path, policy="random", **(named if at_start else {}))
    async with Running(path) as running:
        written(tmp_path, policy="least_request", **named)
        await running.policy_becomes("least_request")
        router = running.app.routers.get()
        router.route(a_request(), request_id="", at_s=time.monotonic())
        router.expire(time.monotonic() + 1e6)  # an entry for the journal
        await asyncio.sleep(0.3)
        assert (await running.get("/ready"))[0] == 200

    assert everything(folder) == before
    assert caplog.text.count("learned not written") == 1
    assert ("journal: not written" in caplog.text) is at_start


async def test_a_predictor_that_is_back_takes_up_what_it_had_learned(tmp_path):
    checkpoint = {"checkpoint_path": str(tmp_path / "learned")}
    path = written(tmp_path, policy="random", **checkpoint)
    async with Running(path) as running:
        router = running.app.routers.get()
        LinearWorld().teach(router.learner, 5)
        written(tmp_path, policy="least_request", predictor="bayesian_linear", **checkpoint)
        await running.policy_becomes("least_request")
        assert router.learner.status().n_samples == 0
        LinearWorld().teach(router.learner, 3)
        written(tmp_path, policy="random", predictor="engine", **checkpoint)
        await running.policy_becomes("random")
        assert router.learner.status().n_samples == 5
    assert read_checkpoint(tmp_path / "learned", "engine")["n_learned"] == 5
    kept = read_checkpoint(tmp_path / "learned.bayesian_linear", "bayesian_linear")
    assert kept["n_learned"] == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"polcy": "learned"}, "did you mean policy"), ({"policy": "magic"}, "magic")],
)
def test_a_wrong_configuration_stops_the_start_and_says_why(tmp_path, settings, said):
    process = serve("--envoy-config", str(written(tmp_path, **settings)))
    _, error = process.communicate(timeout=60)

    assert process.returncode == 2
    assert said in error
    assert "Traceback" not in error


def test_a_taken_address_stops_the_start_and_says_which(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = serve(
            *("--envoy-config", str(written(tmp_path)), "--listen", address),
            *("--admin", "127.0.0.1:0"),
        )
        _, error = process.communicate(timeout=60)

    assert process.returncode == 3
    assert address in error
    assert "Traceback" not in error
