"""Pictures of real runs: TTFT by policy and load, its distribution, and how it goes over time.

Reads a results folder of `compare_on_gpu.py` and writes three PNG files.

Example:

    python benchmarks/plot_results.py benchmarks/gpu/results/first docs/pictures --prefix gpu
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from real_runs import TRACES, Run, read_runs

WARM_UP_S = 10.0
"""Left out where a run is one figure: every cache begins empty."""
WINDOW_S = 5.0
FIGURES = ("mean", "p90", "p99")
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#7f7f7f", "#8c564b", "#e377c2")
"""The first is the subject's."""
SUBJECT = "learned"
FAR_OFF = 3.0
"""Times the subject's mean."""
DOTS_PER_INCH = 90


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder with summary.json and requests.csv.gz")
    parser.add_argument("pictures", type=Path, help="folder to write to")
    parser.add_argument("--prefix", default="real", help="of the file names (default: real)")
    parser.add_argument(
        "--saturation", type=float, help="requests a second: loads are named as its shares"
    )
    parser.add_argument("--traces", type=Path, default=TRACES, help="of runs that replayed one")
    asked = parser.parse_args()
    asked.pictures.mkdir(parents=True, exist_ok=True)
    runs = read_runs(asked.results, asked.traces)
    for path in draw_all(runs, asked.pictures, asked.prefix, asked.saturation):
        print(path)


def draw_all(
    runs: Sequence[Run], folder: Path, prefix: str, saturation_per_s: float | None = None
) -> list[Path]:
    """Write all pictures, of the workload that most of *runs* have.

    The last two are of the load that most of these have.
    """
    mpl.use("agg")
    workloads = [run.cell.workload for run in runs]
    workload = max(sorted(set(workloads)), key=workloads.count)
    runs = [run for run in runs if run.cell.workload == workload]
    rates = [run.cell.rate_per_s for run in runs]
    commonest = max(sorted(set(rates)), key=rates.count)
    at_one_load = [run for run in runs if run.cell.rate_per_s == commonest]
    title = _load_name(commonest, saturation_per_s)
    colours = dict(zip(_policies(runs), COLOURS, strict=False))
    made = []
    for name, figure in (
        ("ttft", _by_load(runs, saturation_per_s, colours)),
        ("distribution", _distribution(at_one_load, title, colours)),
        ("start", _over_time(at_one_load, title, colours)),
    ):
        path = folder / f"{prefix}_{name}.png"
        figure.savefig(path, dpi=DOTS_PER_INCH, bbox_inches="tight")
        made.append(path)
    return made


def _load_name(rate_per_s: float, saturation_per_s: float | None) -> str:
    if saturation_per_s is None:
        return f"{rate_per_s:.1f} /s"
    return f"{100 * rate_per_s / saturation_per_s:.0f} % load"


def _policies(runs: Sequence[Run]) -> list[str]:
    """The subject first, then the fastest first."""
    names = {run.cell.policy for run in runs}
    means = {
        name: np.mean([run.times.ttft_s.mean() for run in runs if run.cell.policy == name])
        for name in names
    }
    return sorted(names, key=lambda name: (name != SUBJECT, means[name]))


def _far_off(runs: Sequence[Run]) -> set[str]:
    """Policies so slow that beside them nothing else could be told apart."""
    policies = _policies(runs)
    means_s = {
        name: np.mean([run.times.ttft_s.mean() for run in runs if run.cell.policy == name])
        for name in policies
    }
    return {name for name in policies if means_s[name] > FAR_OFF * means_s[policies[0]]}


def _without(runs: Sequence[Run], left_out: set[str]) -> tuple[list[Run], str]:
    """The other runs, and a note that says so."""
    note = f"; far above, left out: {', '.join(sorted(left_out))}" if left_out else ""
    return [run for run in runs if run.cell.policy not in left_out], note


def _by_load(
    runs: Sequence[Run], saturation_per_s: float | None, colours: Mapping[str, str]
) -> Figure:
    """A point a run; a bar at the mean of a policy's runs."""
    runs, note = _without(runs, _far_off(runs))
    rates = sorted({run.cell.rate_per_s for run in runs})
    policies = _policies(runs)
    figure = Figure(figsize=(9, 3.8))
    for axes, what in zip(figure.subplots(1, len(FIGURES)), FIGURES, strict=True):
        for at, rate_per_s in enumerate(rates):
            here = [run for run in runs if run.cell.rate_per_s == rate_per_s]
            _column(axes, at, here, colours, what)
        share = saturation_per_s or 1.0
        axes.set_xticks(range(len(rates)), [f"{rate / share:.3g}" for rate in rates])
        axes.set_xlabel("load over saturation" if saturation_per_s else "requests/s", fontsize=9)
        axes.set_xlim(-0.6, len(rates) - 0.4)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"TTFT {what}, ms", fontsize=10)
        axes.grid(axis="y", which="both", alpha=0.25)
    figure.subplots_adjust(wspace=0.3)
    figure.suptitle(f"a point each run, a bar at their mean{note}", fontsize=9)
    _legend(figure, policies, colours)
    return figure


def _column(
    axes: Any, at: float, runs: Sequence[Run], colours: Mapping[str, str], what: str
) -> None:
    """All policies at one load, side by side around *at*."""
    present = [name for name in colours if any(run.cell.policy == name for run in runs)]
    for i, policy in enumerate(present):
        place = at + 0.2 * (i - (len(present) - 1) / 2)
        values = [_figure(run, what) for run in runs if run.cell.policy == policy]
        colour = colours[policy]
        axes.plot([place] * len(values), values, "o", color=colour, markersize=5, alpha=0.8)
        axes.hlines(float(np.mean(values)), place - 0.08, place + 0.08, color=colour)


def _figure(run: Run, what: str) -> float:
    ttft_ms = 1e3 * run.times.ttft_s[run.at_s >= WARM_UP_S]
    return float(ttft_ms.mean() if what == "mean" else np.percentile(ttft_ms, int(what[1:])))


def _distribution(runs: Sequence[Run], title: str, colours: Mapping[str, str]) -> Figure:
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    policies = _policies(runs)
    for policy in policies:
        its = [run for run in runs if run.cell.policy == policy]
        ttft_ms = np.concatenate([1e3 * run.times.ttft_s[run.at_s >= WARM_UP_S] for run in its])
        # A few hundred points draw the same line as thousands.
        share = np.linspace(0.0, 1.0, 400)
        width = 2.5 if policy == SUBJECT else 1.3
        axes.plot(np.quantile(ttft_ms, share), share, color=colours[policy], linewidth=width)
    axes.set_xscale("log")
    axes.set_xlabel("TTFT, ms")
    axes.set_ylabel("share of requests")
    axes.set_title(f"{title}, all rounds, after the first {WARM_UP_S:.0f} s", fontsize=10)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(which="both", alpha=0.25)
    _legend(figure, policies, colours)
    return figure


def _over_time(runs: Sequence[Run], title: str, colours: Mapping[str, str]) -> Figure:
    """The mean of each window, over all rounds; a thin line for each round."""
    runs, note = _without(runs, _far_off(runs))
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    policies = _policies(runs)
    length_s = max(run.cell.duration_s for run in runs)
    edges_s = np.arange(0.0, length_s + 1e-9, WINDOW_S)
    middles_s = edges_s[:-1] + WINDOW_S / 2
    for policy in policies:
        colour = colours[policy]
        lines = np.array([_windows(run, edges_s) for run in runs if run.cell.policy == policy])
        for line in lines:
            axes.plot(middles_s, line, color=colour, linewidth=0.6, alpha=0.35)
        axes.plot(middles_s, lines.mean(axis=0), color=colour, marker=".", linewidth=1.8)
    axes.set_xlabel("seconds since the start, with empty caches and nothing learned")
    axes.set_ylabel(f"mean TTFT of {WINDOW_S:.0f} s of arrivals, ms")
    axes.set_title(f"{title}; thin: each round{note}", fontsize=9)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    _legend(figure, policies, colours)
    return figure


def _windows(run: Run, edges_s: Any) -> Any:
    """Mean TTFT in ms of what arrived between *edges_s*; NaN where nothing did."""
    counts, _ = np.histogram(run.at_s, edges_s)
    sums_s, _ = np.histogram(run.at_s, edges_s, weights=run.times.ttft_s)
    return 1e3 * np.divide(sums_s, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _legend(figure: Figure, policies: Sequence[str], colours: Mapping[str, str]) -> None:
    """One for the whole picture, below it."""
    lines = [Line2D([], [], color=colours[policy], lw=2) for policy in policies]
    figure.legend(
        lines, policies, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=3, fontsize=9
    )


if __name__ == "__main__":
    main()
