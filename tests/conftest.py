from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A test run that is told to stop ends what it started, as on Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
