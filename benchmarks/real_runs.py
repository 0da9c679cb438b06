"""Measured runs of real engines, read from a results folder of `compare_on_gpu.py`.

Prompts are not in it: the arrivals are made again from each cell's seed. It knows no simulator.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent / "vllm"))

from cells import CPU_BLOCK_TOKENS, LETTERS_PER_TOKEN, TRACES, Cell

from lodestar_extproc.evaluation.chats import Arrival
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS

Row: TypeAlias = Mapping[str, str]
MARKER = "\n\n"
"""Stands for a message's role or end in a rendered prompt, which take a token each."""
DECIMALS = 5
"""Of times in what a cell leaves behind."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine gets; *block_ids* one a full block, equal for equal prefixes."""

    prompt_tokens: int
    output_tokens: int
    block_ids: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Times:
    """By request, in seconds."""

    ttft_s: NDArray[np.float64]
    e2e_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """One cell as it was measured; requests that failed are left out.

    Attributes:
        at_s: float64 [n], ascending.
        served_by: name of the endpoint, by request.
    """

    cell: Cell
    at_s: NDArray[np.float64]
    prompts: Sequence[Prompt]
    served_by: NDArray[np.str_]
    times: Times

    @property
    def output_tokens(self) -> NDArray[np.int64]:
        return np.array([prompt.output_tokens for prompt in self.prompts])


def read_runs(folder: Path, traces: Path = TRACES) -> list[Run]:
    """All cells of *folder* whose requests are there, but for sessions', in the order they ran.

    Args:
        traces: folder of the public traces, for runs that replayed one.

    Raises:
        OSError: the folder lacks summary.json or requests.csv.gz.
        ValueError: its requests are not those that the cells' seeds give.
    """
    summary = json.loads((folder / "summary.json").read_text())
    on_cpu = not summary["about"]["gpu"]
    block_tokens = CPU_BLOCK_TOKENS if on_cpu else BLOCK_TOKENS
    rows = _rows_by_cell(folder / "requests.csv.gz", summary["cells"])
    prompts: dict[tuple[str, float, int, float], list[tuple[Arrival, Prompt]]] = {}
    runs = []
    for cell, its_rows in rows.items():
        if cell.has_sessions:
            continue  # They came when answers did: no seed says when.
        arrivals = (cell.workload, cell.rate_per_s, cell.round, cell.duration_s)
        if arrivals not in prompts:
            made = cell.arrivals(on_cpu=on_cpu, traces=traces)
            prompts[arrivals] = [(arrival, prompt_of(arrival, block_tokens)) for arrival in made]
        runs.append(_run(cell, its_rows, prompts[arrivals]))
    return runs


def _rows_by_cell(path: Path, cells: Iterable[Mapping[str, Any]]) -> dict[Cell, list[Row]]:
    """The requests of each cell, which a row names by all of a cell's columns it has."""
    names = [field.name for field in fields(Cell)]
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in names if rows and name in rows[0]]
    by_columns: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        by_columns[tuple(row[name] for name in columns)].append(row)
    found = {}
    for each in cells:
        its_rows = by_columns.get(tuple(str(each[name]) for name in columns))
        if its_rows:
            found[Cell.of(each)] = its_rows
    return found


def _run(cell: Cell, rows: Sequence[Row], made: Sequence[tuple[Arrival, Prompt]]) -> Run:
    waiting: defaultdict[tuple[str, str], list[Prompt]] = defaultdict(list)
    decimals = max(len(row["at_s"].partition(".")[2]) for row in rows)
    for arrival, prompt in made:
        # Rounded twice, as what the rows were made of.
        waiting[f"{round(arrival.at_s, DECIMALS):.{decimals}f}", arrival.kind].append(prompt)
    # Where two have one time and kind, the longer answer took more chunks.
    for alike in waiting.values():
        alike.sort(key=lambda prompt: prompt.output_tokens)
    served = []
    for row in sorted(rows, key=lambda row: int(row["output_chunks"])):
        alike = waiting[f"{float(row['at_s']):.{decimals}f}", row["kind"]]
        if not alike:
            raise ValueError(
                f"{cell.name}: seed {cell.round} makes no {row['kind']} at {row['at_s']} s; "
                "read these results with the version that wrote them"
            )
        prompt = alike.pop(0)
        if not row["failure"]:
            served.append((float(row["at_s"]), prompt, row))
    served.sort(key=lambda each: each[0])
    return Run(
        cell,
        np.array([at_s for at_s, _, _ in served]),
        [prompt for _, prompt, _ in served],
        np.array([row["engine"] for _, _, row in served]),
        Times(*(np.array([float(row[k]) for _, _, row in served]) for k in ("ttft_s", "e2e_s"))),
    )


def prompt_of(arrival: Arrival, block_tokens: int = BLOCK_TOKENS) -> Prompt:
    """Tokens and blocks of *arrival*, counted in letters: within 2 % of the tokenizer's.

    Answers that clients send back are their own, so no block of an answer can be hit.

    Args:
        block_tokens: of the real cache's blocks, a multiple of the simulated one's; these are hit
            all at once or not at all.
    """
    text = "".join(f"{MARKER}{said}{MARKER}" for _, said in arrival.messages) + MARKER
    rendered = text.encode()
    tokens = max(1, round(len(rendered) / LETTERS_PER_TOKEN))
    begin, seed, ids = 0, 0, []
    for number in range(1, tokens // block_tokens + 1):
        end = int(number * block_tokens * LETTERS_PER_TOKEN)
        seed = xxhash.xxh3_64_intdigest(rendered[begin:end], seed)
        begin = end
        parts = range(block_tokens // BLOCK_TOKENS)
        ids += [xxhash.xxh3_64_intdigest(bytes([part]), seed) for part in parts]
    return Prompt(tokens, arrival.output_tokens, np.array(ids, np.uint64))
