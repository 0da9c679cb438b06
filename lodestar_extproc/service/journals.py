"""new_journals(): the journals that the settings of pools ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lodestar_extproc.config import Pool
from lodestar_extproc.journal.journal import Journal
from lodestar_extproc.journal.journal_file import JournalFile
from lodestar_extproc.metrics import Metrics
from lodestar_extproc.service.worker import WorkerPlace, own_file
from lodestar_extproc.supervision import Supervisor


def new_journals(
    pools: Sequence[Pool], metrics: Metrics, supervisor: Supervisor, place: WorkerPlace | None
) -> dict[str, Journal]:
    """One a path: pools may share it; workers may not, so each writes a file of its own."""
    paths = {pool.settings.journal_path for pool in pools}
    return {
        path: Journal(
            JournalFile(own_file(Path(path), place)),
            count=metrics.journal_entries,
            supervisor=supervisor,
        )
        for path in paths
        if path is not None
    }
