"""The command `replay`: what journals say, for people or for machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar_extproc.commands.say import complain, tell
from lodestar_extproc.printable import printable_json

NO_JOURNAL = 2  # exit status


def replay(
    journals: Annotated[
        list[Path], typer.Argument(help="Files that journal_path wrote, old ones too.")
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    seed: Annotated[int, typer.Option(help="Of what policies leave to chance.")] = 0,
) -> None:
    """Report what journals hold: decisions, observed TTFT, prediction error, other policies.

    Lines that are cut off or broken are counted and left out.

    Exit status: 0, 2 a file cannot be read or is no journal.

    Examples:

        lodestar-extproc replay journal.jsonl

        lodestar-extproc replay journal.jsonl* --json > report.json
    """
    # Here, so that other commands need not load River.
    from dataclasses import asdict  # noqa: PLC0415

    import orjson  # noqa: PLC0415

    from lodestar_extproc.commands import replay_view  # noqa: PLC0415
    from lodestar_extproc.evaluation import replay as replaying  # noqa: PLC0415
    from lodestar_extproc.evaluation import replay_reader as reading  # noqa: PLC0415

    counts = reading.ReadCounts()
    try:
        with replay_view.progress(journals, counts) as progressed:
            decisions = reading.read_journals(journals, counts, progressed)
            pools = replaying.reports(decisions, seed)
    except (reading.NoJournal, OSError) as error:
        complain(f"error: {error}")
        raise typer.Exit(NO_JOURNAL) from None
    if as_json:
        note = replay_view.CAVEAT
        report = {"read": asdict(counts), "note": note, "pools": [asdict(p) for p in pools]}
        tell(printable_json(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode()))
        return
    replay_view.show(pools, counts)
