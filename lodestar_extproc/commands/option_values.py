"""Checks of what options name, before any work begins: files to write, folders, addresses.

Each takes what was given and returns it. A command runs for minutes and writes at its end: what
cannot be written is better said at once.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer

MAX_PORT = 65_535  # TCP's


def file_to_write(path: Path | None) -> Path | None:
    """A file that can be written, new or not.

    Raises:
        typer.BadParameter: it cannot be.
    """
    if path is None:
        return None
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder: name a file in it")
    _require_folder(path.parent)
    if path.exists():
        # Not by opening it: a pipe would wait for its reader.
        if not os.access(path, os.W_OK):
            raise typer.BadParameter(f"{path} may not be written: choose another place")
    else:
        _require_room(path.parent)
    return path


def folder_to_fill(path: Path | None) -> Path | None:
    """A folder that is there or can be made, with those above it.

    Raises:
        typer.BadParameter: it is neither.
    """
    if path is None:
        return None
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise typer.BadParameter(f"{there} is a file, not a folder: choose another place")
    _require_room(there)
    return path


def _require_folder(folder: Path) -> None:
    if not folder.exists():
        raise typer.BadParameter(f"there is no folder {folder}: make it first (mkdir -p {folder})")
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder: choose another place")


def _require_room(folder: Path) -> None:
    """By trying: a disk that is full or read-only refuses root, too."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or error
        raise typer.BadParameter(
            f"nothing can be written in {folder} ({why}): choose another place"
        ) from None


def listen_address(address: str) -> str:
    """`host:port`, `[host]:port` or `:port`.

    Raises:
        typer.BadParameter: it is none of them.
    """
    host, colon, port = address.rpartition(":")
    is_bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not colon or not _is_port(port) or is_bare_ipv6 or host.count("/"):
        raise typer.BadParameter(
            f"{address!r} is no address: write HOST:PORT, as 127.0.0.1:9090, [::1]:9090 or :9090, "
            f"with a port from 0 (any free one) to {MAX_PORT}"
        )
    return address


def listen_addresses(addresses: Sequence[str] | None) -> list[str] | None:
    """The same of several, which may also be sockets: `unix:/path`.

    Raises:
        typer.BadParameter: one is neither.
    """
    for address in addresses or ():
        if not address.startswith("unix:"):
            listen_address(address)
        elif not Path(address.removeprefix("unix:")).parent.is_dir():
            raise typer.BadParameter(f"{address}: there is no such folder for the socket")
    return None if addresses is None else list(addresses)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= MAX_PORT
