"""Tables of paired rounds: each contender's figures, and the subject over the best rule of a load.

Reads a results folder of `gather.py` or `compare_on_gpu.py`.

Example:

    python benchmarks/gpu/round_tables.py benchmarks/gpu/results/agents
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "vllm"))

from cells import Cell
from contenders import OTHER_ROUTERS

LEARNED = "learned"
FIGURES = ("mean", "P99", "end to end", "completion")
Key: TypeAlias = tuple[str, str, float, float, int]
"""Of a round: fleet, workload, requests/s, seconds of arrivals, number."""
Load: TypeAlias = tuple[str, str, float, float]


@dataclass(frozen=True)
class Asked:
    """One request that was answered; times in seconds.

    Attributes:
        cached: tokens of the prompt that the engine had; None where nobody says.
    """

    at_s: float
    ttft_s: float
    e2e_s: float
    session: int
    turn: int
    prompt: int
    cached: int | None


@dataclass(frozen=True)
class Figures:
    """Of one run after its warm-up; times in seconds.

    Attributes:
        requests: of the whole run.
        hits: share of the prompts' tokens that were cached.
        completion_s: what a session took, from its first request on, for the turns that it ended
            under every contender of the round; nan without sessions.
    """

    requests: int
    failed: int
    mean_s: float
    p90_s: float
    p99_s: float
    e2e_s: float
    hits: float
    completion_s: float

    def of(self, figure: str) -> float:
        """The one called *figure*, of `FIGURES`."""
        values = (self.mean_s, self.p99_s, self.e2e_s, self.completion_s)
        return values[FIGURES.index(figure)]


Round: TypeAlias = Mapping[str, Figures]
"""By contender."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder with summary.json and requests.csv.gz")
    parser.add_argument("--subject", default=LEARNED, help="held against the rules")
    asked = parser.parse_args()
    rounds = read_rounds(asked.results)
    for line in (*rounds_table(rounds), "", *ratios_table(rounds, asked.subject)):
        print(line)


def read_rounds(folder: Path) -> dict[Key, Round]:
    """All rounds of *folder* of which more than one contender ran; repeats are left out."""
    told = json.loads((folder / "summary.json").read_text())["cells"]
    cells = [cell for cell in map(Cell.of, told) if not cell.repeat]
    by_cell: defaultdict[tuple[Key, str], list[Mapping[str, str]]] = defaultdict(list)
    with gzip.open(folder / "requests.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            if int(row["repeat"]):
                continue
            cell = Cell.of(row | {name: float(row[name]) for name in ("rate_per_s", "duration_s")})
            by_cell[_key(replace(cell, round=int(cell.round))), cell.policy].append(row)
    found: dict[Key, Round] = {}
    for key, its in groupby(sorted(cells, key=_key), key=_key):
        rows = {cell.policy: (cell, by_cell[key, cell.policy]) for cell in its}
        if len(rows) > 1:
            found[key] = _round(rows)
    return found


def _key(cell: Cell) -> Key:
    return cell.fleet, cell.workload, cell.rate_per_s, cell.duration_s, cell.round


def _round(rows: Mapping[str, tuple[Cell, Sequence[Mapping[str, str]]]]) -> Round:
    answered = {
        policy: [_asked(row) for row in its if not row["failure"]]
        for policy, (_, its) in rows.items()
    }
    completion_s = completions_s(answered)
    return {
        policy: _figures(cell, its, answered[policy], completion_s[policy])
        for policy, (cell, its) in rows.items()
    }


def _asked(row: Mapping[str, str]) -> Asked:
    session, cached = int(row["session"]), row["cached_tokens"]
    return Asked(
        float(row["at_s"]),
        float(row["ttft_s"]),
        float(row["e2e_s"]),
        session,
        int(row["turn"]),
        int(row["prompt_tokens"] or 0),
        int(cached) if cached else None,
    )


def _figures(
    cell: Cell, rows: Sequence[object], answered: Sequence[Asked], completion_s: float
) -> Figures:
    warm = [each for each in answered if each.at_s >= cell.warm_up_s]
    ttft_s = np.array([each.ttft_s for each in warm])
    told = [each for each in warm if each.cached is not None]
    prompts = sum(each.prompt for each in told)
    return Figures(
        len(rows),
        len(rows) - len(answered),
        float(ttft_s.mean()),
        float(np.percentile(ttft_s, 90)),
        float(np.percentile(ttft_s, 99)),
        float(np.mean([each.e2e_s for each in warm])),
        sum(each.cached or 0 for each in told) / prompts if prompts else float("nan"),
        completion_s,
    )


def completions_s(answered: Mapping[str, Sequence[Asked]]) -> dict[str, float]:
    """See `Figures.completion_s`: the mean over the sessions that all contenders served."""
    ends = {policy: _ends_by_session(asked) for policy, asked in answered.items()}
    common = set.intersection(*(set(each) for each in ends.values())) - {-1}
    turns = {session: min(len(each[session]) for each in ends.values()) for session in common}
    return {
        policy: float(np.mean([each[s][n - 1] for s, n in turns.items()])) if turns else np.nan
        for policy, each in ends.items()
    }


def _ends_by_session(answered: Sequence[Asked]) -> dict[int, list[float]]:
    """When each session's turns ended, from its first request on."""
    ends: dict[int, list[float]] = {}
    started: dict[int, float] = {}
    for each in sorted(answered, key=lambda asked: asked.at_s):
        start_s = started.setdefault(each.session, each.at_s)
        ends.setdefault(each.session, []).append(each.at_s + each.e2e_s - start_s)
    return ends


def by_load(rounds: Mapping[Key, Round]) -> dict[Load, list[Round]]:
    """The rounds of each load, by number."""
    loads: dict[Load, list[Round]] = {}
    for key in sorted(rounds):
        loads.setdefault(key[:4], []).append(rounds[key])
    return loads


def rounds_table(rounds: Mapping[Key, Round]) -> Iterator[str]:
    """Every contender at every load, a figure a round, in ms and seconds."""
    yield "| load | contender | mean | p90 | P99 | end to end, s | completion, s | hits |"
    yield "|---|---|---|---|---|---|---|---|"
    for (fleet, workload, rate_per_s, _), its in by_load(rounds).items():
        names = sorted({name for each in its for name in each}, key=lambda n: (n != LEARNED, n))
        for name in names:
            ran = [each.get(name) for each in its]
            columns = [
                _column(ran, lambda f: f"{1e3 * f.mean_s:.0f}"),
                _column(ran, lambda f: f"{1e3 * f.p90_s:.0f}"),
                _column(ran, lambda f: f"{1e3 * f.p99_s:.0f}"),
                _column(ran, lambda f: f"{f.e2e_s:.2f}"),
                _column(ran, lambda f: f"{f.completion_s:.1f}"),
                _column(ran, lambda f: f"{f.hits:.2f}"),
            ]
            load = f"{fleet}, {workload}, {rate_per_s:g}"
            yield f"| {load} | {name} | {' | '.join(columns)} |"


def _column(ran: Sequence[Figures | None], show: Callable[[Figures], str]) -> str:
    return " ".join("-" if figures is None else show(figures) for figures in ran)


def ratios_table(rounds: Mapping[Key, Round], subject: str) -> Iterator[str]:
    """*subject* over the best rule of each load, picked afterwards, and of each round."""
    yield (
        "| load | best rule | mean, each round | geometric mean | P99 | end to end | completion "
        "| over each round's best | rounds won |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for (fleet, workload, rate_per_s, _), its in by_load(rounds).items():
        held = [each for each in its if subject in each and len(rules(each)) > 0]
        if not held:
            continue
        best = best_rule(held)
        over = {f: [each[subject].of(f) / each[best].of(f) for each in held] for f in FIGURES}
        bests = [each[subject].mean_s / min(each[n].mean_s for n in rules(each)) for each in held]
        won = sum(
            all(each[subject].mean_s <= each[n].mean_s for n in others(each)) for each in held
        )
        means = " ".join(f"{ratio:.2f}" for ratio in over["mean"])
        columns = " | ".join(f"{geometric_mean(over[figure]):.2f}" for figure in FIGURES)
        yield (
            f"| {fleet}, {workload}, {rate_per_s:g} | {best} | {means} | {columns} "
            f"| {geometric_mean(bests):.2f} | {won} of {len(held)} |"
        )


def others(its: Round) -> list[str]:
    """All that ran in a round but what learns: rules and other routers."""
    return [name for name in its if not name.startswith(LEARNED)]


def rules(its: Round) -> list[str]:
    """The fixed rules that ran in a round."""
    return [name for name in others(its) if name not in OTHER_ROUTERS]


def best_rule(its: Sequence[Round]) -> str:
    """Of those that ran in all rounds, the one with the least geometric mean of mean TTFTs."""
    names = set.intersection(*(set(rules(each)) for each in its))
    return min(sorted(names), key=lambda name: geometric_mean([r[name].mean_s for r in its]))


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    return float(np.exp(np.mean(np.log(values))))


if __name__ == "__main__":
    main()
