"""keep_workers(): what `serve --workers N` does itself; the workers are processes of `serve`."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_extproc.config import Config
    from lodestar_extproc.service.options import ServeOptions

MAX_FOLDER = 90
"""Of Linux's 107 bytes for the path of a Unix socket; the rest is the socket's own name."""
_log = logging.getLogger(__name__)


def keep_workers(n_workers: int, config: Config, options: ServeOptions) -> int:
    """Keep *n_workers* of them until a signal; the exit status.

    Raises:
        OSError: an address is taken, or there is no folder for sockets.
        ValueError: the addresses are none for several.
    """
    from lodestar_extproc.service.listen import all_addresses  # noqa: PLC0415  (after --help)
    from lodestar_extproc.service.worker import WorkerPlace, dealt, own_admin  # noqa: PLC0415
    from lodestar_extproc.service.workers import Workers  # noqa: PLC0415

    addresses = all_addresses(config, options.listen, n_workers)
    with tempfile.TemporaryDirectory(prefix="lodestar-") as folder:
        if len(folder) > MAX_FOLDER:
            raise OSError(f"{folder} is too long for the path of a socket: set TMPDIR to a shorter")
        own_admin(options.admin, WorkerPlace(n_workers - 1, n_workers, Path(folder), 0))
        if dealt(addresses, n_workers):
            _log.info("%d workers, each at one of %s", n_workers, ", ".join(addresses))
        else:
            for address in addresses:
                _require_free(address)
            _log.info("%d workers, all at %s", n_workers, ", ".join(addresses))
        command = (sys.executable, "-m", "lodestar_extproc", *sys.argv[1:])
        return asyncio.run(Workers(n_workers, command, Path(folder)).run())


def _require_free(address: str) -> None:
    """Nobody else may listen where workers share a port: each would get some of our requests.

    Raises:
        OSError: somebody does.
        ValueError: it says no port.
    """
    host, _, port = address.rpartition(":")
    if port == "0":
        raise ValueError(f"{address}: workers share a port, so it has to be named")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise OSError(f"cannot listen on {address}; is it in use?") from error
