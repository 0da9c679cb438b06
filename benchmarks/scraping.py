"""What it costs to watch a fleet: scrapes of vLLM-sized pages and health probes, over loopback.

    python benchmarks/scraping.py --endpoints 64 --interval 0.2

CPU is this process's alone: the pages are served by another one. "idle" is the pace without
traffic, "busy" the configured one, or the longer one that the budget allows. "late" is how late
timers of 2 ms are: what a request that comes at that moment waits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.engine_client import EngineClient
from lodestar_extproc.fleet.engine_metrics import names_read
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.fleet.prober import Prober
from lodestar_extproc.fleet.scrape_budget import UNSEEN_S
from lodestar_extproc.fleet.scraper import Scraper
from metric_pages import a_vllm_page, part_of

WARM_UP_S = 2.0
TICK_S = 0.002


class Page(asyncio.Protocol):
    """Answers as vLLM does: with all of the page, or with those metrics that are asked for."""

    def __init__(self, whole: bytes, part: bytes) -> None:
        self._whole, self._part = whole, part

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        answer = self._part if data.startswith(b"GET /metrics/?name") else self._whole
        self._transport.write(answer * data.count(b"\r\n\r\n"))  # type: ignore[attr-defined]


def answer_of(page: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page)


def serve_pages(n: int, ports: Connection, *, whole_only: bool) -> None:
    page = a_vllm_page()
    part = part_of(page, [name.decode() for name in names_read("vllm")])
    whole_answer = answer_of(page)
    part_answer = whole_answer if whole_only else answer_of(part)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(lambda: Page(whole_answer, part_answer), "127.0.0.1", 0)
            for _ in range(n)
        ]
        ports.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.Event().wait()

    uvloop.run(run())


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def late_ms(late: list[float]) -> None:
    """How late each timer was: as late as a request that came at that moment."""
    clock = time.perf_counter
    while True:
        asleep_at_s = clock()
        await asyncio.sleep(TICK_S)
        late.append(1e3 * (clock() - asleep_at_s - TICK_S))


async def used(*runs: Coroutine[None, None, None], seconds: float) -> tuple[float, list[float]]:
    """The share of a core that *runs* take, and how late the loop came to others meanwhile."""
    late: list[float] = []
    running = [asyncio.create_task(run) for run in (*runs, late_ms(late))]
    await asyncio.sleep(WARM_UP_S)
    late.clear()
    started_cpu_s, started_at_s = cpu_s(), time.monotonic()
    await asyncio.sleep(seconds)
    used_s, took_s = cpu_s() - started_cpu_s, time.monotonic() - started_at_s
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return used_s / took_s, sorted(late)


async def measure(ports: Sequence[int], *, interval_s: float, seconds: float, busy: bool) -> dict:
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    endpoints = [
        Endpoint(u[7:], metrics_url=u + "/metrics", health_url=u + "/health") for u in urls
    ]
    live = LiveSettings(PoolSettings(scrape_interval_s=interval_s))
    fleet = Fleet(live, endpoints)
    with closing(EngineClient()) as client:
        scraper = Scraper(client, fleet.record_metrics, live, busy=lambda: busy)
        prober = Prober(client, fleet.record_probe, live)
        scraper.set_endpoints(endpoints)
        prober.set_endpoints(endpoints)
        nothing, late_without = await used(seconds=seconds / 3)
        probing, _ = await used(prober.run(), seconds=seconds / 3)
        counts = list(scraper.counts.values())
        began_at_s = time.monotonic()
        both, late = await used(scraper.run(), prober.run(), seconds=seconds)
        took_s = time.monotonic() - began_at_s
        scrapes_per_s = sum(each.succeeded for each in counts) / took_s
    scraping = both - probing
    return {
        "scrapes_per_s": round(scrapes_per_s, 1),
        "interval_s": round(scraper.interval_s, 3),
        "core_ratio": round(both - nothing, 4),
        "probing_core_ratio": round(probing - nothing, 4),
        "scrape_us": round(1e6 * scraping / max(1.0, scrapes_per_s)),
        "unseen_us": round(
            1e6 * (scraping / max(1.0, scrapes_per_s) - scraper.pace.scrape_s + UNSEEN_S)
        ),
        "late_p99_ms": round(late[int(0.99 * len(late))], 2),
        "late_p99_ms_without": round(late_without[int(0.99 * len(late_without))], 2),
        "late_worst_ms": round(late[-1], 2),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--endpoints", type=int, default=64)
    options.add_argument("--interval", type=float, default=0.2, help="seconds between scrapes")
    options.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    options.add_argument(
        "--whole", action="store_true", help="of engines that give no part of their page"
    )
    asked = options.parse_args()
    ours, theirs = multiprocessing.Pipe()
    servers = multiprocessing.Process(
        target=serve_pages,
        args=(asked.endpoints, theirs),
        kwargs={"whole_only": asked.whole},
        daemon=True,
    )
    servers.start()
    ports = ours.recv()
    result = {
        pace: uvloop.run(
            measure(ports, interval_s=asked.interval, seconds=asked.seconds, busy=pace == "busy")
        )
        for pace in ("busy", "idle")
    }
    servers.terminate()
    print(json.dumps({"endpoints": asked.endpoints, "page_bytes": len(a_vllm_page()), **result}))


if __name__ == "__main__":
    main()
