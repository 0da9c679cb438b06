"""Holds the simulated engine against a real vLLM run: `make bench-validate ARGS="--traces PATH"`.

The run: vLLM 0.19, Llama-3.1-8B on one RTX 4090, 300 ShareGPT requests at 10 a second, saturated,
from https://github.com/casys-kaist/LLMServingSim (MIT), file
bench/examples/RTX4090/Llama-3.1-8B/vllm/requests.jsonl. The simulated engine sees the same arrivals
and lengths, without noise and without prefix hits (the prompts share none). Its coefficients come
from that project's layer profile; none was tuned to the run.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.simulator.accelerators import ACCELERATORS
from lodestar_extproc.simulator.engine import Engine, EventKind

MAX_ERROR_RATIO = {"TTFT mean": 0.03, "TTFT p99": 0.05, "TPOT mean": 0.03}


@dataclass(frozen=True, slots=True)
class Run:
    """Times of one run, by request, in seconds."""

    arrival: NDArray[np.float64]
    first: NDArray[np.float64]
    last: NDArray[np.float64]
    output_tokens: NDArray[np.int64]

    def figures(self) -> dict[str, float]:
        """TTFT in s, TPOT in ms."""
        ttft = self.first - self.arrival
        tpot = 1e3 * (self.last - self.first) / (self.output_tokens - 1)
        p50, p90, p99 = np.quantile(ttft, [0.5, 0.9, 0.99])
        return {
            "TTFT mean": float(ttft.mean()),
            "TTFT p50": float(p50),
            "TTFT p90": float(p90),
            "TTFT p99": float(p99),
            "TPOT mean": float(tpot.mean()),
        }


def read_log(path: Path) -> tuple[Run, NDArray[np.int64]]:
    """The real run and its prompts' tokens, in order of arrival."""
    rows = sorted((json.loads(line) for line in path.open()), key=lambda row: row["queued_ts"])
    start = rows[0]["queued_ts"]
    arrival, first, last = (
        np.array([row[name] - start for row in rows])
        for name in ("queued_ts", "first_token_ts", "last_token_ts")
    )
    prompt, output = (
        np.array([row[name] for row in rows]) for name in ("input_toks", "output_toks")
    )
    return Run(arrival, first, last, output), prompt


def simulate(real: Run, prompt_tokens: NDArray[np.int64]) -> tuple[Run, Engine]:
    """The same arrivals on the simulated engine."""
    # Arrivals were logged at the engine's queue, behind the API.
    engine = Engine(
        replace(ACCELERATORS["rtx4090"], jitter_cv=0.0, stall_ratio=0.0, api_delay_s=0.0)
    )
    no_ids = np.empty(0, np.uint64)
    lengths = zip(prompt_tokens.tolist(), real.output_tokens.tolist(), strict=True)
    for number, (prompt, output) in enumerate(lengths):
        engine.submit(number, no_ids, prompt, output, float(real.arrival[number]))
    first, last = np.zeros_like(real.arrival), np.zeros_like(real.arrival)
    for event in engine.advance(math.inf):
        times = first if event.kind == EventKind.FIRST_TOKEN else last
        times[event.request] = event.at_s
    return Run(real.arrival, first, last, real.output_tokens), engine


def compare(real: Run, simulated: Run) -> bool:
    """Print real, simulated and error; whether every bound holds."""
    within = True
    expected, got = real.figures(), simulated.figures()
    print(f"{'':10} {'real':>8} {'simulated':>10} {'error':>7}  bound")
    for name, value in expected.items():
        error = got[name] / value - 1
        bound = MAX_ERROR_RATIO.get(name, math.inf)
        within &= abs(error) <= bound
        verdict = f"±{bound:.0%}" if bound < math.inf else ""
        unit = "ms" if name.startswith("TPOT") else "s"
        print(f"{name:10} {value:8.2f} {got[name]:10.2f} {error:+7.1%}  {verdict:4} {unit}")
    ttft_error = np.abs((simulated.first - real.arrival) / (real.first - real.arrival) - 1)
    print(f"median error of a request's TTFT: {np.median(ttft_error):.1%}")
    return within


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--traces",
        type=Path,
        required=True,
        metavar="PATH",
        help="requests.jsonl, or a folder that has it at any depth under RTX4090/",
    )
    path: Path = parser.parse_args().traces
    if path.is_dir():
        found = [p for p in sorted(path.rglob("requests.jsonl")) if "RTX4090" in p.parts]
        if not found:
            parser.error(f"no RTX4090/.../requests.jsonl under {path}")
        path = found[0]
    if not path.is_file():
        parser.error(f"{path} does not exist; where to get it: --help")
    real, prompt_tokens = read_log(path)
    simulated, engine = simulate(real, prompt_tokens)
    within = compare(real, simulated)
    print(f"{len(prompt_tokens)} requests, {engine.gauges().preemptions} preemptions simulated")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
