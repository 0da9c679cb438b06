"""The JSON a benchmark writes: every cell's figures, and the ratios of the learned policy."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from lodestar_extproc.evaluation.comparison import BEST_HEURISTIC, COMPARED, Comparison


def write_json(
    path: Path,
    comparison: Comparison,
    command: Sequence[str],
    elapsed_s: float,
    beside: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """All of *comparison* at *path*, and what else is to stand *beside* it."""
    content = _heading(command, elapsed_s) | _content(comparison) | dict(beside)
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def write_parts(
    path: Path, parts: Mapping[str, Comparison], command: Sequence[str], elapsed_s: float
) -> None:
    """Several comparisons at *path*: the first as `write_json` has one, and each under `parts`."""
    found = {name: _content(comparison) for name, comparison in parts.items()}
    first = next(iter(found.values()), {})
    content = _heading(command, elapsed_s) | first | {"parts": found}
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _heading(command: Sequence[str], elapsed_s: float) -> dict[str, Any]:
    return {
        "command": list(command),
        "elapsed_s": round(elapsed_s, 1),
        "versions": {
            "lodestar_extproc": importlib.metadata.version("lodestar-extproc"),
            "python": platform.python_version(),
        },
    }


def _content(comparison: Comparison) -> dict[str, Any]:
    return {
        "subject": comparison.subject,
        "cells": cells(comparison),
        "ratios": ratios(comparison),
    }


def cells(comparison: Comparison) -> list[dict[str, Any]]:
    """One entry for each cell, seed and policy."""
    return [
        {
            **asdict(outcome.cell),
            "seed": outcome.seed,
            "policy": outcome.contender,
            **asdict(outcome.figures),
        }
        for outcome in comparison.outcomes
    ]


def ratios(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """The learned policy over each other one, and over the best heuristic of each cell."""
    subject = comparison.subject
    if subject is None:
        return {}
    others = [c for c in comparison.contenders if c != subject]
    if comparison.heuristics:
        others.append(BEST_HEURISTIC)
    return {other: _ratios(comparison, subject, other) for other in others}


def _ratios(comparison: Comparison, subject: str, other: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for figure in COMPARED:
        ratio = comparison.ratio(subject, other, figure)
        found[figure] = ratio.value
        found[f"{figure}_interval"] = None if math.isnan(ratio.low) else [ratio.low, ratio.high]
        found[f"worst_cell_{figure}"] = ratio.worst
        found[f"worst_cell_{figure}_name"] = ratio.worst_cell.name
    return found
