"""Rounds: policies one after another on real engines, each on the same arrivals and cold caches.

A plan is a list of cells; what is done is kept in a folder after each, so that another program can
go on where one had to stop.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from cells import Cell, Load
from contenders import VLLM_ROUTER, settings_of
from engines import MODEL, Engine, EnginePlan, reset_caches
from gateway import Gateway, running_gateway, running_vllm_router

from lodestar_extproc.demo.watch import model_share
from lodestar_extproc.evaluation.load import LoadClient, LoadRecord, request_id
from lodestar_extproc.evaluation.summary import summarise
from lodestar_extproc.fleet.engine_metrics import parse

POLL_S = 2.0
REQUEST_FIELDS = (
    *("at_s", "kind", "ttft_s", "e2e_s", "output_chunks"),
    # The name of the engine that served it.
    *("engine", "failure"),
    # Whose turn it was; the tokens are as the engine counts them.
    *("session", "turn", "prompt_tokens", "cached_tokens"),
    # What the router took for cached where it was sent, and why that was chosen.
    *("matched_tokens", "reason"),
)
DECISION_FIELDS = (
    # The request's id names session and turn.
    *("request_id", "age_s"),
    *("policy", "reason", "chosen", "served", "prompt_tokens", "matched_tokens"),
    *("predicted_ttft_s", "ttft_s", "outcome"),
)


class Workbench:
    """Runs cells on running engines and keeps what came of them in *folder*."""

    def __init__(
        self, engines: Sequence[Engine], folder: Path, settings: Mapping[str, Any]
    ) -> None:
        self._engines = engines
        self._settings = settings
        self._cells = folder / "cells"
        self._gateway = folder / "gateway"
        for each in (self._cells, self._gateway):
            each.mkdir(parents=True, exist_ok=True)

    def done(self, cell: Cell) -> dict[str, Any] | None:
        """What came of *cell*, if it has run."""
        path = self._cells / f"{cell.name}.json"
        return dict(json.loads(path.read_text())) if path.exists() else None

    async def run(self, cell: Cell, load: Load) -> dict[str, Any]:
        """Run *cell* from cold, unless it has run."""
        known = self.done(cell)
        if known is not None:
            return known
        await reset_caches(self._engines)
        plans = [engine.plan for engine in self._engines]
        before = await _counters(self._engines)
        async with self._gateway_of(cell, plans) as gateway:
            decisions = _Decisions(gateway)
            polling = asyncio.create_task(decisions.run())
            client = LoadClient(gateway.url, model=MODEL)
            started_s = time.time()
            records = await client.run(load, load.next_turns)
            took_s = time.time() - started_s
            polling.cancel()
            await decisions.poll()
            by_model = await decisions.model_share()
        after = await _counters(self._engines)
        result = _result(cell, records, plans, before, after)
        result |= {"took_s": took_s, "model_share": by_model}
        self._keep(cell, result, records, decisions)
        return result

    def _gateway_of(
        self, cell: Cell, plans: Sequence[EnginePlan]
    ) -> AbstractAsyncContextManager[Gateway]:
        if cell.policy == VLLM_ROUTER:
            return running_vllm_router(plans, self._gateway)
        settings = self._settings | settings_of(cell.policy)
        return running_gateway(plans, settings, self._gateway)

    def _requests(
        self, records: Sequence[LoadRecord], decisions: Sequence[Mapping[str, Any]]
    ) -> list[list[Any]]:
        """A row of REQUEST_FIELDS each; what is not known of a request is left empty."""
        names = {engine.plan.address: engine.plan.name for engine in self._engines}
        decided = {each["request_id"]: each for each in decisions}
        rows = []
        for record in records:
            its = decided.get(request_id(record.session, record.turn), {})
            row = {**its, **asdict(record), "engine": names.get(record.served_by, "")}
            rows.append([_short(row.get(name, "")) for name in REQUEST_FIELDS])
        return rows

    def _keep(
        self,
        cell: Cell,
        result: Mapping[str, Any],
        records: Sequence[LoadRecord],
        decisions: _Decisions,
    ) -> None:
        seen = decisions.seen()
        requests = self._requests(records, seen)
        _write_csv(self._cells / f"{cell.name}.requests.csv", REQUEST_FIELDS, requests)
        rows = [[_short(each[name]) for name in DECISION_FIELDS] for each in seen]
        _write_csv(self._cells / f"{cell.name}.decisions.csv", DECISION_FIELDS, rows)
        # Last: a cell that has this has everything.
        (self._cells / f"{cell.name}.json").write_text(json.dumps(result, indent=1))

    def results(self) -> list[dict[str, Any]]:
        """Of all cells that have run, in the order they did."""
        paths = sorted(self._cells.glob("*.json"), key=lambda path: path.stat().st_mtime)
        return [json.loads(path.read_text()) for path in paths]

    def publish(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Write summary.json, requests.csv.gz and decisions.csv.gz of all cells to *folder*."""
        folder.mkdir(parents=True, exist_ok=True)
        results = self.results()
        summary = {"about": about, "cells": results}
        (folder / "summary.json").write_text(json.dumps(summary, indent=1))
        names = [field.name for field in fields(Cell)]
        cells = [Cell.of(each) for each in results]
        for what in ("requests", "decisions"):
            with gzip.open(folder / f"{what}.csv.gz", "wt", newline="") as out:
                for i, cell in enumerate(cells):
                    path = self._cells / f"{cell.name}.{what}.csv"
                    header, *lines = path.read_text().splitlines()
                    its = ",".join(str(getattr(cell, name)) for name in names)
                    out.writelines([] if i else [f"{','.join(names)},{header}\n"])
                    out.writelines(f"{its},{line}\n" for line in lines)
        for log in self._gateway.glob("*.log"):
            shutil.copy(log, folder / f"last-{log.name}")


class _Decisions:
    """Lodestar's own account of its decisions, asked for while it still has them.

    Of another router's there is none.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._by_id: dict[str, dict[str, Any]] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            with suppress(aiohttp.ClientError, TimeoutError):
                await self.poll()

    async def poll(self) -> None:
        if not self._gateway.admin_url:
            return
        for each in (await self._gateway.admin("/decisions?limit=256"))["decisions"]:
            # The age when first seen places it in time; the rest may have come since.
            first = self._by_id.get(each["decision_id"])
            seen_at_s = time.monotonic() - each["age_s"]
            each["age_s"] = first["age_s"] if first else seen_at_s
            self._by_id[each["decision_id"]] = each

    async def model_share(self) -> float | None:
        """See `watch.model_share`."""
        if not self._gateway.admin_url:
            return None
        return model_share((await _page(f"{self._gateway.admin_url}/metrics")).decode())

    def seen(self) -> list[dict[str, Any]]:
        """In order; `age_s` counts from the first."""
        ordered = sorted(self._by_id.values(), key=lambda each: float(each["age_s"]))
        start_s = ordered[0]["age_s"] if ordered else 0.0
        return [each | {"age_s": each["age_s"] - start_s} for each in ordered]


async def _counters(engines: Sequence[Engine]) -> list[dict[str, float]]:
    found = []
    for engine in engines:
        metrics = parse(await _page(f"{engine.plan.url}/metrics"), engine="vllm")
        found.append(
            {
                "prefix_query_tokens": metrics.prefix_query_tokens or 0.0,
                "prefix_hit_tokens": metrics.prefix_hit_tokens or 0.0,
                "cpu_s": engine.cpu_s(),
            }
        )
    return found


async def _page(url: str) -> bytes:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        return await (await session.get(url)).read()


def _result(
    cell: Cell,
    records: Sequence[LoadRecord],
    plans: Sequence[EnginePlan],
    before: Sequence[Mapping[str, float]],
    after: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    grown = [{k: b[k] - a[k] for k in a} for a, b in zip(before, after, strict=True)]
    asked = sum(each["prefix_query_tokens"] for each in grown)
    warm = [record for record in records if record.at_s >= cell.warm_up_s]
    failures = [record.failure[:200] for record in records if record.failure]
    return asdict(cell) | {
        "whole": asdict(summarise(records)),
        "warm": asdict(summarise(warm)),
        "warm_cached_ratio": cached_ratio(warm),
        "throughput_per_s": throughput_per_s(records),
        "hit_ratio": sum(each["prefix_hit_tokens"] for each in grown) / max(asked, 1.0),
        "cpu_s": sum(each["cpu_s"] for each in grown),
        "engines": {
            plan.name: {
                "share": sum(r.served_by == plan.address for r in records) / max(1, len(records)),
                "hit_ratio": each["prefix_hit_tokens"] / max(each["prefix_query_tokens"], 1.0),
            }
            for plan, each in zip(plans, grown, strict=True)
        },
        "failures": {reason: len(list(same)) for reason, same in groupby(sorted(failures))},
    }


def cached_ratio(records: Sequence[LoadRecord]) -> float | None:
    """Share of the prompts' tokens that answers say were cached; None where none says so.

    The engines' counters count a waiting request again at each step, answers count it once.
    """
    told = [r for r in records if r.prompt_tokens is not None and r.cached_tokens is not None]
    asked = sum(r.prompt_tokens or 0 for r in told)
    return sum(r.cached_tokens or 0 for r in told) / asked if asked else None


def throughput_per_s(records: Sequence[LoadRecord]) -> float:
    """Answers ended a second while the middle three fifths of them did: without ramp and tail."""
    ends_s = [r.at_s + r.e2e_s for r in records if r.e2e_s is not None]
    if len(ends_s) < 10:
        return 0.0
    begin_s, end_s = np.percentile(ends_s, (20, 80))
    return float(0.6 * len(ends_s) / (end_s - begin_s))


def _write_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def _short(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value
