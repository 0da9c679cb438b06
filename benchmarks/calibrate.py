"""Fits the simulated engine to real ones, and says how far off it is on runs it never saw.

Reads a results folder of `compare_on_gpu.py`. The coefficients of each endpoint are fitted to some
runs; every other run is then replayed, each request at its time on the endpoint that served it, and
the times compared. With --host one number more an endpoint, how fast its host was, is fitted to the
warm-up of each replayed run; only what comes after is compared. With --pace one number more a run,
how fast the whole machine was, is read off its time per token, fitted runs too; their TTFT is not
looked at for it.

Examples:

    python benchmarks/calibrate.py benchmarks/gpu/results/first --fit rate_per_s=42.52,round=1

    python benchmarks/calibrate.py out/vllm/results --fit "round=1,repeat=0|1" --pace --json f.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from engine_fit import (
    FITTED,
    first_guess,
    fit,
    fit_host,
    pace_of,
    part_of,
    simulate,
    slower_host,
    tpot_s,
    value_of,
)
from numpy.typing import NDArray
from real_runs import TRACES, Run, Times, read_runs

from lodestar_extproc.simulator.accelerators import EngineSpec

ALIKE: Mapping[str, float] = MappingProxyType({})
WARM_UP_S = 10.0
"""Of a run, in which every cache begins empty; left out of all figures."""
FIGURES = ("mean", "p50", "p90", "p99", "TPOT", "e2e")
"""TTFT's first."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One run, real and simulated.

    Attributes:
        real, simulated: FIGURES, in seconds.
        slower: how many times as long hosts, or the machine, were taken to need as when fitted.
        hit_ratio: prompt tokens that the simulated caches held.
        median_error: of one request's TTFT, as a share of the real one.
    """

    run: Run
    real: Mapping[str, float]
    simulated: Mapping[str, float]
    slower: Sequence[float]
    hit_ratio: float
    median_error: float

    def error(self, figure: str) -> float:
        """Simulated over real, less one."""
        return self.simulated[figure] / self.real[figure] - 1.0


def main() -> None:
    asked = arguments()
    about = json.loads((asked.results / "summary.json").read_text())["about"]
    runs = read_runs(asked.results, asked.traces)
    fitted = [run for run in runs if chosen(run, asked.fit)]
    others = [run for run in runs if run not in fitted]
    if not fitted:
        sys.exit(f"no run has {asked.fit}; there are: " + ", ".join(run.cell.name for run in runs))
    specs = dict(fit_all(fitted, about, asked.evaluations))
    if asked.pace:
        paces = {run.cell.name: pace_of(run, specs, is_warm(run)) for run in fitted}
        typical = statistics.geometric_mean(paces.values())
        paces = {name: pace / typical for name, pace in paces.items()}
        specs = dict(fit_all(fitted, about, asked.evaluations, paces))
    print("\n".join(coefficients(specs)), flush=True)
    tables = {"fitted": fitted, "not fitted": others}
    for title, some in tables.items():
        replays = [replay(run, specs) for run in some]
        print("\n".join(["", f"{title}:", "", *table(replays)]), flush=True)
    if asked.host:
        replays = [on_hosts(run, specs) for run in others]
        print("\n".join(["", "not fitted, but for the hosts' speed:", "", *table(replays)]))
    if asked.pace:
        replays = [at_pace(run, specs) for run in others]
        print("\n".join(["", "not fitted, but for the machine's pace:", "", *table(replays)]))
    print("\n".join(["", "real runs beside each other:", "", *spreads(runs)]))
    print("\n".join(["", *idle_spread(about)]))
    if asked.json:
        asked.json.write_text(json.dumps({k: asdict(v) for k, v in specs.items()}, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder with summary.json and requests.csv.gz")
    parser.add_argument(
        "--fit",
        type=conditions,
        default="round=1,repeat=0",
        metavar="NAME=VALUE,...",
        help="runs to fit, by fields of their cell; values parted by | (default: %(default)s)",
    )
    parser.add_argument("--host", action="store_true", help="fit the hosts' speed in each run, too")
    parser.add_argument("--pace", action="store_true", help="take the machine's pace from TPOT")
    parser.add_argument("--evaluations", type=int, default=500, help="of one endpoint's fit")
    parser.add_argument("--json", type=Path, help="write the fitted engines here")
    parser.add_argument("--traces", type=Path, default=TRACES, help="of runs that replayed one")
    return parser.parse_args()


def conditions(text: str) -> dict[str, str]:
    """What `--fit` says."""
    parts = [part.partition("=") for part in text.split(",")]
    if not all(equals for _, equals, _ in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form round=1,policy=learned")
    return {name.strip(): value.strip() for name, _, value in parts}


def chosen(run: Run, wanted: Mapping[str, str]) -> bool:
    return all(
        str(getattr(run.cell, name, None)) in value.split("|") for name, value in wanted.items()
    )


def fit_all(
    runs: Sequence[Run],
    about: Mapping[str, Any],
    evaluations: int,
    paces: Mapping[str, float] = ALIKE,
) -> Iterator[tuple[str, EngineSpec]]:
    """The engine that fits each endpoint best.

    Args:
        paces: of the machine, by the run's name.
    """
    for endpoint in sorted({str(name) for run in runs for name in run.served_by}):
        began_s = time.monotonic()
        alone = next(v for k, v in about["alone"].items() if k.endswith(endpoint))
        kv_tokens = int(alone.get("kv_tokens") or about["kv_tokens"])
        parts = [part_of(run, endpoint, pace=paces.get(run.cell.name, 1.0)) for run in runs]
        guess = first_guess(endpoint, alone, kv_tokens)
        yield endpoint, fit([part for part in parts if len(part.numbers)], guess, evaluations)
        print(f"{endpoint} fitted in {time.monotonic() - began_s:.0f} s", file=sys.stderr)


def on_hosts(run: Run, specs: Mapping[str, EngineSpec]) -> Replayed:
    """*run* on hosts as slow as they were in its warm-up, which no figure counts."""
    parts = {name: part_of(run, name, until_s=WARM_UP_S) for name in specs}
    hosts = {name: fit_host(part, specs[name]) for name, part in parts.items() if len(part.numbers)}
    slowed = {name: slower_host(spec, hosts.get(name, 1.0)) for name, spec in specs.items()}
    return replay(run, slowed, list(hosts.values()))


def at_pace(run: Run, specs: Mapping[str, EngineSpec]) -> Replayed:
    """*run* on a machine as slow as its time per token says."""
    pace = pace_of(run, specs, is_warm(run))
    return replay(run, specs, [pace], pace=pace)


def replay(
    run: Run,
    specs: Mapping[str, EngineSpec],
    slower: Sequence[float] = (),
    *,
    pace: float = 1.0,
) -> Replayed:
    """What *specs* make of *run* at *pace*; *slower* is shown beside it."""
    simulated, hit_ratio = simulate(run, specs, pace)
    warm = is_warm(run)
    errors = np.abs(simulated.ttft_s / run.times.ttft_s - 1.0)[warm]
    return Replayed(
        run,
        figures(run.times, run.output_tokens, warm),
        figures(simulated, run.output_tokens, warm),
        slower,
        hit_ratio,
        float(np.median(errors)),
    )


def is_warm(run: Run) -> NDArray[np.bool_]:
    """Which requests of *run* came after its warm-up."""
    warm: NDArray[np.bool_] = run.at_s >= WARM_UP_S
    return warm


def figures(times: Times, output_tokens: Any, warm: Any) -> dict[str, float]:
    ttft_s = times.ttft_s[warm]
    values = (
        ttft_s.mean(),
        *np.percentile(ttft_s, (50, 90, 99)),
        tpot_s(times, output_tokens)[warm].mean(),
        times.e2e_s[warm].mean(),
    )
    return dict(zip(FIGURES, map(float, values), strict=True))


def coefficients(specs: Mapping[str, EngineSpec]) -> Iterator[str]:
    yield "| endpoint | " + " | ".join(FITTED) + " |"
    yield "|---" * (len(FITTED) + 1) + "|"
    for endpoint, spec in specs.items():
        yield f"| {endpoint} | " + " | ".join(f"{value_of(spec, n):.3g}" for n in FITTED) + " |"


def table(replays: Sequence[Replayed]) -> Iterator[str]:
    """A row a run: the real figure in ms and the simulated one's error."""
    yield "| load | policy | round | " + " | ".join(FIGURES) + " | one request | hits | slower |"
    yield "|---" * (len(FIGURES) + 6) + "|"
    loads = sorted({load_of(each.run) for each in replays})
    for each in sorted(replays, key=lambda each: (load_of(each.run), each.run.cell.name)):
        cell = each.run.cell
        again = f" again {cell.repeat}" if cell.repeat else ""
        slower_by = " ".join(f"{factor:.2f}" for factor in each.slower)
        errors = [f"{1e3 * each.real[name]:.0f} {each.error(name):+.0%}" for name in FIGURES]
        yield (
            f"| {load_name(load_of(each.run))} | {cell.policy} | {cell.round}{again} | "
            + " | ".join(errors)
            + f" | {each.median_error:.0%} | {each.hit_ratio:.2f} | {slower_by} |"
        )
    for load in loads:
        some = [each for each in replays if load_of(each.run) == load]
        mean = [np.mean([abs(each.error(name)) for each in some]) for name in FIGURES]
        signed = [np.mean([each.error(name) for each in some]) for name in FIGURES]
        cells = [f"{a:.0%} ({b:+.0%})" for a, b in zip(mean, signed, strict=True)]
        yield f"| {load_name(load)} | mean error (bias) | | " + " | ".join(cells) + " | | | |"


def load_of(run: Run) -> tuple[str, float]:
    return run.cell.workload, run.cell.rate_per_s


def load_name(load: tuple[str, float]) -> str:
    return f"{load[0]} {load[1]}/s"


def spreads(runs: Sequence[Run]) -> Iterator[str]:
    """By how much real runs of one policy and load differ: with and without the same arrivals."""
    yield "| arrivals | load | policy | runs | " + " | ".join(FIGURES) + " |"
    yield "|---" * (len(FIGURES) + 4) + "|"
    for same in (True, False):
        alike: dict[tuple[Any, ...], list[Run]] = {}
        for run in runs:
            cell = run.cell
            key = (load_of(run), cell.policy, cell.round if same else None)
            if same or cell.repeat == 0:
                alike.setdefault(key, []).append(run)
        for (load, policy, _), some in alike.items():
            if len(some) < 2:
                continue
            each = [figures(r.times, r.output_tokens, is_warm(r)) for r in some]
            cells = [spread([one[name] for one in each]) for name in FIGURES]
            yield (
                f"| {'same' if same else 'other'} | {load_name(load)} | {policy} | {len(some)} | "
                + " | ".join(cells)
                + " |"
            )


def idle_spread(about: Mapping[str, Any]) -> Iterator[str]:
    """What repeats exactly: prompts of one length on an idle engine."""
    yield "TTFT of an idle engine, prompts of one length, the first length left out:"
    for endpoint, alone in about["alone"].items():
        lengths = alone["prefill"][1:]
        said = [f"{each['prompt_tokens']} tokens {spread(each['ttft_s'])}" for each in lengths]
        yield f"- {endpoint}: {', '.join(said)}"


def spread(values: Sequence[float]) -> str:
    """The furthest from the mean, as a share of it."""
    mean = float(np.mean(values))
    return f"±{max(abs(value / mean - 1.0) for value in values):.0%}"


if __name__ == "__main__":
    main()
