"""What `load` shows while it runs, and writes at its end."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path

from lodestar_extproc.evaluation.chats import Chats
from lodestar_extproc.evaluation.fitted_table import FittedTable
from lodestar_extproc.evaluation.load import LoadClient, LoadRecord
from lodestar_extproc.evaluation.summary import Summary, summarise


def table(client: LoadClient, chats: Chats) -> FittedTable:
    """How far it is, and the figures of what has ended."""
    sent_until_s = max((r.at_s for r in client.records), default=0.0)
    summary = summarise(client.records)
    return FittedTable(
        tuple(field.name for field in fields(Summary)),
        left=0,
        title=f"{client.n_sent} sent, {sent_until_s:.0f} of {chats.duration_s:.0f} s",
        rows=[tuple(_shown(getattr(summary, field.name)) for field in fields(Summary))],
    )


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def failures(records: list[LoadRecord]) -> str:
    """Each reason, and how often."""
    reasons = [r.failure for r in records if r.failure]
    return "; ".join(f"{reasons.count(reason)} x {reason}" for reason in dict.fromkeys(reasons))


def write_csv(path: Path, records: list[LoadRecord]) -> None:
    """One line a request."""
    names = [field.name for field in fields(LoadRecord)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([getattr(record, name) for name in names] for record in records)
