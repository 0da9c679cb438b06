"""`serve --workers`: several processes, one after another killed, behind a real Envoy."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from child_process import ChildProcess
from lodestar_extproc.commands.serve import BAD_CONFIG, CANNOT_LISTEN
from ports import a_port
from process_stack import get
from steady_load import SteadyLoad
from waiting import until
from worker_stack import WorkerStack, running_workers

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]
HANDED = 'lodestar_handed_over_total{result="handed"}'
LOST = 'lodestar_handed_over_total{result="lost"}'


def alive(pids: list[int]) -> bool:
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


async def ask_more(load: SteadyLoad, n: int = 60) -> None:
    ended = len(load.ended)
    await until(lambda: len(load.ended) >= ended + n)


async def test_what_one_worker_hears_of_anothers_request_is_told_to_it_and_nothing_is_lost(
    tmp_path,
):
    async with running_workers(tmp_path, addresses_each=True) as stack:
        async with SteadyLoad(stack.envoy.url) as load:
            await ask_more(load, 120)
        await until(stack.nothing_is_open)

        assert min(await stack.decided()) > 20  # Envoy deals out streams, so both have a part
        assert await stack.total(HANDED) > 20
        assert await stack.total(LOST) == 0
        served = await stack.total('lodestar_requests_total{outcome="served",pool="engines"}')
        assert served == len(load.ended)
        assert await stack.total("lodestar_ttft_seconds_count") == sum(
            e.streamed for e in load.ended
        )
        await until(lambda: all_have_learned(stack, 0.9 * sum(e.streamed for e in load.ended)))
    assert not load.problems


async def all_have_learned(stack: WorkerStack, n: float) -> bool:
    """Each from the others' first tokens as from its own."""
    return all([(await w.pool())["learner"]["samples"] >= n for w in stack.workers])


async def test_on_one_port_every_worker_gets_connections_in_time_and_no_client_notices(tmp_path):
    async with running_workers(tmp_path) as stack:
        async with SteadyLoad(stack.envoy.url, n_clients=16) as load:
            await until(lambda: all_decided(stack), 120.0)
            await ask_more(load)
        await until(stack.nothing_is_open)

        assert await stack.total(LOST) == 0
        assert not any((await stack.failures()).values())
    assert not load.problems


async def all_decided(stack: WorkerStack) -> bool:
    return min(await stack.decided()) > 0


async def test_a_worker_that_is_killed_is_begun_anew_and_no_client_fails(tmp_path):
    async with running_workers(tmp_path, addresses_each=True) as stack:
        before = stack.pids()
        async with SteadyLoad(stack.envoy.url) as load:
            await ask_more(load)
            os.kill(before[0], signal.SIGKILL)
            await until(lambda: len(set(stack.pids()) - {before[0]}) == 2)
            await until(stack.all_shared)
            await ask_more(load)

        assert "killed by SIGKILL; begun anew" in stack.service.log()
    assert not load.problems


@pytest.mark.slow  # A quarter of a minute goes by until it is known to stand still.
async def test_a_worker_that_stands_still_is_ended_and_begun_anew(tmp_path):
    async with running_workers(tmp_path) as stack:
        still = stack.pids()[0]
        os.kill(still, signal.SIGSTOP)
        await until(lambda: still not in stack.pids(), 60.0)
        await until(stack.all_shared)

        assert "stands still: ended" in stack.service.log()


async def test_a_signal_to_stop_ends_all_of_them_well_and_each_keeps_what_is_its_own(tmp_path):
    files = {
        "checkpoint_path": str(tmp_path / "learned"),
        "journal_path": str(tmp_path / "journal"),
    }
    async with running_workers(tmp_path, addresses_each=True, **files) as stack:
        async with SteadyLoad(stack.envoy.url) as load:
            await ask_more(load, 120)
        await until(stack.nothing_is_open)
        pids = stack.pids()

        assert await stack.service.terminate() == 0
        assert not alive(pids)
        decided = 0
        for name in ("journal", "journal.worker-1"):
            lines = (tmp_path / name).read_text().splitlines()
            decided += len(lines) - 1  # beside the header
        assert decided >= len(load.ended)
        assert (tmp_path / "learned").exists()
        assert (tmp_path / "learned.worker-1").exists()
    assert not load.problems


async def test_workers_end_by_themselves_where_their_parent_is_killed(tmp_path):
    async with running_workers(tmp_path) as stack:
        pids = stack.pids()
        stack.service.kill()
        await until(lambda: not alive(pids), 30.0)

        assert "the process that kept this worker is gone" in stack.service.log()


async def test_told_to_reload_every_worker_reads_its_settings_anew(tmp_path):
    async with running_workers(tmp_path) as stack:
        text = stack.envoy.config_file.read_text()
        stack.envoy.config_file.write_text(
            text.replace('"lodestar": {', '"lodestar": {"observed_ratio": 0.5, ')
        )
        os.kill(stack.service.pid, signal.SIGHUP)
        await until(lambda: reloaded(stack))


async def reloaded(stack: WorkerStack) -> bool:
    pages = [await get(f"{each.url}/metrics") for each in stack.workers]
    applied = 'lodestar_config_reloads_total{result="applied"} 1.0'
    return all(applied in page for page in pages)


async def test_a_port_that_somebody_has_and_one_too_many_are_said_by_words_and_status(tmp_path):
    async with running_workers(tmp_path) as stack:
        again = ChildProcess("again", stack.service.command, tmp_path)
        with again:
            assert await again.ended() == CANNOT_LISTEN
            assert "cannot listen on 127.0.0.1" in again.log()

        socket = f"unix:{tmp_path}/s"
        shared = ChildProcess("shared", [*stack.service.command, "--listen", socket], tmp_path)
        with shared:
            assert await shared.ended() == BAD_CONFIG
            assert "workers cannot share the file of a socket" in shared.log()


async def test_where_sockets_would_have_too_long_a_path_the_error_says_what_to_set(
    tmp_path, monkeypatch
):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    async with running_workers(tmp_path) as stack:
        monkeypatch.setenv("TMPDIR", str(deep))
        listen = ("--listen", f"127.0.0.1:{a_port()}")
        again = ChildProcess("deep", [*stack.service.command, *listen], tmp_path)
        with again:
            assert await again.ended() == CANNOT_LISTEN
            assert "set TMPDIR to a shorter" in again.log()
