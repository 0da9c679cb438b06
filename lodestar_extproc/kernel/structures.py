"""The structs of `kernel.c`, field by field, and the arrays that they point to.

They own the arrays, so that a call passes one pointer; `compiled.find_kernel` compares their sizes.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_double, c_int64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

N_ENGINE, N_FEATURES = 8, 19
"""Features of an engine, and all of them; a test holds that they are those of `features.py`."""
GIVEN = (
    "matched_tokens",
    "prefill_s_per_ktoken",
    "service_ratio",
    "asked_again_ratio",
    "memory_ratio",
    "penalty_s",
)
"""Rows of what is given beside a snapshot, in their order."""
TOLD = ("ttft_s", "service_s", "backlog_s", "s_per_ktoken", "cost_s")
"""Rows of what is told of each candidate, in their order."""


class Constants(Structure):
    """What decisions are computed by and never changes; see the modules that own them."""

    _fields_ = (
        ("scales", c_double * N_ENGINE),
        ("api_delay_s", c_double),
        ("min_prefill_s_per_token", c_double),
        ("min_step_tokens", c_double),
        ("max_head_progress_ratio", c_double),
        ("kv_usable_ratio", c_double),
        ("min_s_per_ktoken", c_double),
        ("min_ttft_s", c_double),
        ("max_utilisation", c_double),
        ("max_memory_used", c_double),
        ("own_share", c_double),
        ("max_spared_s", c_double),
    )


class WeighingCall(Structure):
    """One decision: what goes in and what comes out."""

    _fields_ = (
        ("constants", POINTER(Constants)),
        ("values", c_void_p),
        ("given", c_void_p),
        ("theta", c_void_p),
        ("range", c_void_p),
        ("ties", c_void_p),
        ("told", c_void_p),
        ("row", c_void_p),
        ("order", c_void_p),
        ("scratch", c_void_p),
        ("n", c_int64),
        ("row_of", c_int64),
        ("at_s", c_double),
        ("prompt_tokens", c_double),
        ("arrivals_per_s", c_double),
        ("externality_weight", c_double),
        ("decode_weight", c_double),
        ("eviction_weight", c_double),
        ("memory_weight_s", c_double),
        ("backlog_limit_s", c_double),
        ("cascade_limit", c_double),
        ("weighs_others", c_int64),
        ("is_finite", c_int64),
        ("is_in_range", c_int64),
    )


class MemoryUse(Structure):
    """The mean use of each endpoint's memory, as a request arrives."""

    _fields_ = (
        ("values", c_void_p),
        ("mean", c_void_p),
        ("seen_at_s", c_void_p),
        ("told", c_void_p),
        ("n", c_int64),
        ("at_s", c_double),
        ("memory_s", c_double),
    )


class Equations(Structure):
    """One regressor's normal equations and their solution."""


Equations._fields_ = (
    ("rows", c_void_p),
    ("theta", c_void_p),
    ("sample", c_void_p),
    ("pulled", c_void_p),
    ("shrink_to", POINTER(Equations)),
    ("d", c_int64),
    ("sweeps", c_int64),
    ("forgetting", c_double),
    ("shrinkage_samples", c_double),
    ("n_samples", c_double),
    ("empty", c_double),
    ("min_energy", c_double),
)
SCALARS = ("sweeps", "forgetting", "shrinkage_samples", "n_samples", "empty", "min_energy")
"""Of `Equations`, by which one regressor differs from another."""
STRUCTURES = (Constants, WeighingCall, MemoryUse, Equations)
"""In the order by which `lodestar_size` knows them."""


class WeighingArrays:
    """What one decision among *n* candidates is computed in, again and again.

    Attributes:
        struct: points to the arrays, and has the scalars.
        call: what the kernel is called with.
        values: [*n_columns*, n]; given: [GIVEN, n]; theta: [n, N_ENGINE]; range: [2, N_FEATURES];
            ties: [n]; told: [TOLD, n]; row: [N_FEATURES]; order: [n].
        candidates, penalty_s: views of `given`, all rows but the last and the last.
        weights: what the cost is weighed by, of which the struct has a copy; None before any.
    """

    def __init__(self, n: int, n_columns: int, constants: Constants) -> None:
        self.values = np.zeros((n_columns, n))
        self.given = np.zeros((len(GIVEN), n))
        self.theta = np.zeros((n, N_ENGINE))
        self.range = np.full((2, N_FEATURES), np.nan)
        self.ties = np.zeros(n, np.uint64)
        self.told = np.zeros((len(TOLD), n))
        self.row = np.zeros(N_FEATURES)
        self.order = np.zeros(n, np.int64)
        self.candidates, self.penalty_s = self.given[:-1].reshape(-1), self.given[-1]
        self._scratch = np.zeros(n, np.int64)
        self._constants = constants
        self.struct = WeighingCall(ctypes.pointer(constants), n=n)
        for name in ("values", "given", "theta", "range", "ties", "told", "row", "order"):
            setattr(self.struct, name, getattr(self, name).ctypes.data)
        self.struct.scratch = self._scratch.ctypes.data
        self.call = ctypes.byref(self.struct)
        self.weights: object = None
        self._learned: tuple[FloatArray, FloatArray | None] | None = None

    def learned(self, theta: FloatArray, limits: FloatArray | None) -> None:
        """Compute by this θ, [n, N_ENGINE], and range, [2, N_FEATURES]; None for an empty one.

        Neither array changes in place: the same one need not be copied again.
        """
        known = self._learned
        if known is None or known[0] is not theta or known[1] is not limits:
            self._learned = theta, limits
            self.theta[:] = theta
            self.range[:] = np.nan if limits is None else limits


class MemoryArrays:
    """What the mean use of memory of *n* endpoints is computed in, again and again.

    Attributes:
        mean, seen_at_s: [n]; the caller's, and changed in place.
        told: [n].
    """

    def __init__(
        self, mean: FloatArray, seen_at_s: FloatArray, n_columns: int, memory_s: float
    ) -> None:
        n = len(mean)
        self.values = np.zeros((n_columns, n))
        self.mean, self.seen_at_s = mean, seen_at_s
        self.told = np.zeros(n)
        self.struct = MemoryUse(n=n, memory_s=memory_s)
        for name in ("values", "mean", "seen_at_s", "told"):
            setattr(self.struct, name, getattr(self, name).ctypes.data)
        self.call = ctypes.byref(self.struct)


class EquationArrays:
    """One regressor's equations and their solution, changed in place; a copy has arrays of its own.

    Args:
        shrink_to: the arrays of another regressor of the same features; None for none.
        scalars: of the struct, by name.

    Attributes:
        rows: [d, d + 1], Gram matrix and moment; theta: [d]; sample: [d].
    """

    def __init__(self, shrink_to: EquationArrays | None = None, **scalars: float) -> None:
        self.shrink_to = shrink_to
        self.struct = Equations(**scalars)
        if shrink_to is not None:
            self.struct.shrink_to = ctypes.pointer(shrink_to.struct)
        self.call = ctypes.byref(self.struct)
        self.resize(np.zeros((0, 1)), np.zeros(0))

    def resize(self, rows: FloatArray, theta: FloatArray) -> None:
        """Go on with these, which may be of more features than before."""
        # Copies, for what is passed may lie in memory in any order.
        self.rows, self.theta = np.array(rows, order="C"), np.array(theta)
        self.sample = np.zeros(len(theta))
        self._pulled = np.zeros_like(self.rows)
        self.struct.d = len(theta)
        self.struct.rows = self.rows.ctypes.data
        self.struct.theta = self.theta.ctypes.data
        self.struct.sample = self.sample.ctypes.data
        self.struct.pulled = self._pulled.ctypes.data

    def __getstate__(self) -> dict[str, Any]:
        """Without addresses, which are another's in a copy."""
        scalars = {name: getattr(self.struct, name) for name in SCALARS}
        return {"shrink_to": self.shrink_to, "scalars": scalars, "arrays": (self.rows, self.theta)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        EquationArrays.__init__(self, state["shrink_to"], **state["scalars"])
        self.resize(*state["arrays"])
