"""The report of a benchmark: a page of tables, and pictures beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lodestar_extproc.evaluation.comparison import Comparison
from lodestar_extproc.evaluation.plots import draw_all
from lodestar_extproc.evaluation.results import write_json
from lodestar_extproc.evaluation.scenarios import find_scenario
from lodestar_extproc.evaluation.tables import cell_rows, markdown, quality_rows, ratio_rows


def write_report(
    folder: Path, comparison: Comparison, command: Sequence[str], elapsed_s: float
) -> None:
    """Write report.md, results.json and the pictures into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = list(draw_all(folder, comparison))
    sections = [*_sections(comparison), *_picture_section(pictures)]
    began = f"`lodestar-extproc {' '.join(command)}`, {elapsed_s / 60:.0f} minutes.\n"
    (folder / "report.md").write_text("\n".join(["# Benchmark\n", began, *sections]))
    write_json(folder / "results.json", comparison, command, elapsed_s)


def _sections(comparison: Comparison) -> Iterator[str]:
    if comparison.subject is not None and len(comparison.contenders) > 1:
        yield f"## {comparison.subject} over others\n"
        yield "Geometric means over cells, with 95 % intervals over the seeds.\n"
        yield markdown(ratio_rows(comparison))
        yield from _by(comparison, "fleet")
        yield from _by(comparison, "load")
        yield from _by(comparison, "scenario")
        yield "## Predictions and choices\n"
        yield markdown(quality_rows(comparison))
    yield "## Every cell\n"
    yield markdown(cell_rows(comparison))


def _by(comparison: Comparison, attribute: str) -> Iterator[str]:
    """The ratios of the cells that have one value of *attribute*, for each value."""
    values = list(dict.fromkeys(getattr(cell, attribute) for cell in comparison.cells))
    if len(values) < 2:
        return
    for value in values:
        cells = [c for c in comparison.cells if getattr(c, attribute) == value]
        text = f": {find_scenario(value).text}" if attribute == "scenario" else ""
        yield f"### {attribute} {value}{text}\n"
        yield markdown(ratio_rows(comparison, cells))


def _picture_section(pictures: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name, caption in pictures:
        yield f"![{caption}]({name})\n\n{caption}\n"
