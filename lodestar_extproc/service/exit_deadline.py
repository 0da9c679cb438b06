"""exit_within(): the process ends in time, whatever hangs: a disk, a thread, a library."""

from __future__ import annotations

import logging
import os
import sys
import threading

MARGIN_S = 10.0
"""Beyond draining and grace: a last checkpoint and journal take well under a second; Kubernetes
kills what takes 30 s in all."""
HUNG = 4
"""Exit status: asked to stop, and something did not end."""
_log = logging.getLogger(__name__)


def exit_within(seconds: float) -> None:
    """End the process after *seconds*, if it has not ended by itself until then."""
    timer = threading.Timer(seconds, _end, (seconds,))
    timer.daemon = True
    timer.start()


def _end(seconds: float) -> None:
    _log.error("stopping took more than %g s, so something hangs: ended without it", seconds)
    sys.stdout.flush()
    sys.stderr.flush()
    # Whatever else ends a process waits for its threads first.
    os._exit(HUNG)
