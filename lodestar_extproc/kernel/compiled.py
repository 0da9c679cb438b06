"""find_kernel(): the compiled kernel, or why there is none; who computes by it has a plain twin."""

from __future__ import annotations

import ctypes
import os
import zlib
from collections.abc import Callable
from ctypes import c_double, c_int64, c_uint64, c_void_p
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from lodestar_extproc.kernel.structures import STRUCTURES

VARIABLE = "LODESTAR_KERNEL"
"""Of the environment: while the package is built, and while it runs."""
SOURCE = Path(__file__).parent / "kernel.c"
LIBRARY = SOURCE.with_suffix(".so")


class Wish(StrEnum):
    """What `LODESTAR_KERNEL` may say."""

    AUTO = "auto"
    """Compiled where it is there."""
    OFF = "off"
    """Plain, always."""
    REQUIRED = "required"
    """Compiled, or not at all."""


class Kernel(NamedTuple):
    """The functions of `kernel.c`; each takes the `call` of its arrays.

    `absorb` takes a target and a weight beside it; `hash_blocks` whole blocks or their address, how
    many they are, a seed, and where to write so many hashes.
    """

    weigh: Callable[[Any], None]
    row: Callable[[Any], None]
    memory_use: Callable[[Any], None]
    absorb: Callable[[Any, float, float], None]
    solve: Callable[[Any], None]
    hash_blocks: Callable[[bytes | int, int, int, int], None]


class FoundKernel(NamedTuple):
    """The kernel, and what is to be said of it.

    Attributes:
        kernel: None where it is not to be used, or cannot be.
        words: why so.
        is_missed: it is required and is not there.
    """

    kernel: Kernel | None
    words: str
    is_missed: bool = False

    @property
    def name(self) -> str:
        """`compiled` or `plain`, as the metric says it."""
        return "plain" if self.kernel is None else "compiled"


def find_kernel(library: Path = LIBRARY, wish: str = "") -> FoundKernel:
    """The kernel in *library*, as *wish* (see `Wish`; empty for `auto`) has it."""
    if wish not in ("", *Wish):
        words = f"{VARIABLE} is {wish!r}: it may be {', '.join(Wish)}"
        return FoundKernel(None, words, is_missed=True)
    if wish == Wish.OFF:
        return FoundKernel(None, f"plain arithmetic, as {VARIABLE}=off asks for")
    try:
        return FoundKernel(_load(library), "the compiled kernel")
    except (OSError, ValueError) as error:
        required = wish == Wish.REQUIRED
        words = f"{VARIABLE}=required, but {error}" if required else f"plain arithmetic: {error}"
        return FoundKernel(None, words, is_missed=required)


def _load(path: Path) -> Kernel:
    """Raises OSError, ValueError: it is not there, not of this machine, or not of this source."""
    if not path.exists():
        raise ValueError("no kernel was compiled (no C compiler when the package was built)")
    # It keeps the interpreter's lock: a call is over sooner than others would have taken it.
    library = ctypes.PyDLL(str(path))
    _check(library)
    library.lodestar_absorb.argtypes = [c_void_p, c_double, c_double]
    library.lodestar_hash_blocks.argtypes = [c_void_p, c_int64, c_uint64, c_void_p]
    functions = [getattr(library, f"lodestar_{name}") for name in Kernel._fields]
    for function in functions:
        function.restype = None
    return Kernel(*functions)


def _check(library: ctypes.PyDLL) -> None:
    """Raises ValueError: it was compiled from another source, or for other structs."""
    for function in ("lodestar_source", "lodestar_size"):
        if not hasattr(library, function):
            raise ValueError("the compiled kernel is none of ours; install the package again")
        getattr(library, function).restype = c_int64
    library.lodestar_size.argtypes = [c_int64]
    if library.lodestar_source() != zlib.crc32(SOURCE.read_bytes()):
        raise ValueError("the compiled kernel is of another source; install the package again")
    sizes = [library.lodestar_size(which) for which in range(len(STRUCTURES))]
    if sizes != [ctypes.sizeof(each) for each in STRUCTURES]:
        raise ValueError(f"the compiled kernel's structs are of {sizes} bytes, ours are not")


FOUND = find_kernel(wish=os.environ.get(VARIABLE, ""))
KERNEL = FOUND.kernel
"""As this process has it; None for the plain twins."""
