"""An engine's arrays, for compiled code that is told where the engine's record lies.

It knows the layout only. Numba's cache does not see changes in an imported file: after one, remove
this folder's `__pycache__`.
"""

from __future__ import annotations

from typing import Any

from numba import carray, njit, types
from numba.extending import intrinsic

from lodestar_extproc.simulator.state import BLOCK, ENGINE, REQUEST, EngineState


@intrinsic
def _pointer(_typing: Any, address: Any) -> Any:
    """*address* as a pointer, for `carray`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[0], pointer)

    return types.voidptr(address), generate


@njit(inline="always")
def record_at(address: int) -> Any:
    """The ENGINE record that lies at *address*."""
    return carray(_pointer(address), 1, ENGINE)[0]


@njit(inline="always")
def state_at(address: int) -> EngineState:
    """All arrays of the engine whose record lies at *address*."""
    engine = record_at(address)
    return EngineState(
        engine,
        carray(_pointer(engine.requests_at), engine.n_requests, REQUEST),
        carray(_pointer(engine.blocks_at), engine.n_blocks, BLOCK),
        carray(_pointer(engine.index_at), engine.n_index, types.int32),
        carray(_pointer(engine.spans_at), engine.n_spans, types.int64),
    )
