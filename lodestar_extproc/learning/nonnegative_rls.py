"""NonNegativeRLS: recursive least squares whose coefficients cannot turn negative, for River.

One object with two ways in, over one state. `learn_one` and `predict_one` take dicts, as all of
River does. `absorb` and `solve` take arrays, for a caller that teaches one row to several
regressors. It does not know what its features mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import mul
from typing import Any, ClassVar

import numpy as np
from river import base

from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.kernel.compiled import KERNEL, Kernel
from lodestar_extproc.kernel.structures import EquationArrays

_EMPTY = 1e-12  # a smaller curvature is rounding: the feature was never seen, leave its coefficient
_LARGEST = 1e100  # in a state: products of larger numbers would overflow
_MIN_ENERGY = 1e-6  # of a feature: one that was never seen is still pulled to what it shrinks to


class NonNegativeRLS(base.Regressor):  # type: ignore[misc]
    """Linear regression with non-negative coefficients, by recursive least squares.

    For targets that are sums of costs: more of a feature can never lower the prediction. There is
    no intercept; a constant feature serves as one.

    The normal equations, gram·θ = moment, forget geometrically. They are solved for θ >= 0 by
    sequential coordinate descent (Franc, Hlaváč, Navara 2005,
    https://doi.org/10.1007/11556121_50), from the last solution.

    Args:
        forgetting: factor on the weight of the past at each sample, so that the memory is about
            1/(1 - forgetting) samples; 1 never forgets.
        prior: coefficients before any sample; 0 for features it does not name.
        prior_scale: standard deviation of the prior: one for all coefficients, or by name, and 1
            for those it does not name. The prior fades as samples do.
        sweeps: of coordinate descent a sample.
        shrink_to: a regressor whose coefficients, as they are at each solution, take the place of
            a prior. It is told of the features that are new here, so that both have the same.
        shrinkage_samples: the weight of that pull: as much as so many average samples.

    Attributes:
        kernel: computes; None for numpy and plain floats alone.

    >>> regressor = NonNegativeRLS(forgetting=1.0, prior_scale=100.0, sweeps=200)
    >>> for tokens, steps in [(1, 1), (2, 1), (3, 5), (4, 2)]:
    ...     x = {"tokens": tokens, "steps": steps}
    ...     regressor.learn_one(x, 0.15 * tokens + 0.02 * steps)
    >>> round(regressor.predict_one({"tokens": 10, "steps": 5}), 3)
    1.6
    """

    kernel: ClassVar[Kernel | None] = KERNEL

    def __init__(
        self,
        forgetting: float = 0.998,
        prior: dict[Any, float] | None = None,
        prior_scale: float | dict[Any, float] = 1.0,
        sweeps: int = 4,
        shrink_to: NonNegativeRLS | None = None,
        shrinkage_samples: float = 5.0,
    ) -> None:
        self.forgetting = forgetting
        self.prior = prior
        self.prior_scale = prior_scale
        self.sweeps = sweeps
        self.shrink_to = shrink_to
        self.shrinkage_samples = shrinkage_samples
        self._arrays: EquationArrays = EquationArrays(
            None if shrink_to is None else shrink_to._arrays,  # noqa: SLF001  (of its own kind)
            sweeps=sweeps,
            forgetting=forgetting,
            shrinkage_samples=shrinkage_samples,
            empty=_EMPTY,
            min_energy=_MIN_ENERGY,
        )
        self._places: dict[Any, int] = {}
        self.admit((prior or {}) if shrink_to is None else ())

    @property
    def theta(self) -> FloatArray:
        """θ, the coefficients, [d], in the order of `features`; changed in place by `solve`."""
        return self._arrays.theta

    @property
    def n_samples(self) -> float:
        """How many the past still counts as."""
        return float(self._arrays.struct.n_samples)

    @property
    def gram(self) -> FloatArray:
        """Σ w·x·xᵀ, and the precision of the prior, [d, d]."""
        return self._arrays.rows[:, :-1]

    @property
    def moment(self) -> FloatArray:
        """Σ w·y·x, and the same of the prior, [d]."""
        return self._arrays.rows[:, -1]

    @property
    def features(self) -> tuple[Any, ...]:
        """The names of the features, in the order of `theta`: first the prior's, in its order."""
        return tuple(self._places)

    @property
    def coefficients(self) -> dict[Any, float]:
        """θ by the name of the feature."""
        return dict(zip(self._places, self.theta.tolist(), strict=True))

    def coefficient(self, name: Any) -> float:
        """θ of one feature; of one that was never seen, its prior."""
        if name in self._places:
            return float(self.theta[self._places[name]])
        if self.shrink_to is not None:
            return self.shrink_to.coefficient(name)
        return (self.prior or {}).get(name, 0.0)

    # -- River's way in --------------------------------------------------------------------------

    def learn_one(self, x: dict[Any, Any], y: float, w: float = 1.0) -> None:
        """Update with features *x*, target *y* and weight *w*."""
        # Sorted: places must not depend on the order of the dict.
        self.admit(sorted((name for name in x if name not in self._places), key=str))
        absorb_in_all((self,), self._row(x), y, w)
        self.solve()

    def predict_one(self, x: dict[Any, Any]) -> float:
        """The target of *x*; a feature that was never seen counts with its prior."""
        unseen = sum(self.coefficient(k) * v for k, v in x.items() if k not in self._places)
        return float(self._row(x) @ self.theta) + float(unseen)

    def admit(self, names: Iterable[Any]) -> None:
        """Make room for the features that are new, in their order; no prediction changes."""
        if self.shrink_to is not None:
            # Both keep a feature at the same place, so that their arrays can be added.
            self.shrink_to.admit(names)
            names = self.shrink_to.features
        new = [name for name in names if name not in self._places]
        if not new:
            return
        size = len(self._places)
        start = np.array([self.coefficient(name) for name in new], dtype=np.float64)
        precision = np.array([self._prior_precision(name) for name in new])
        gram = np.diag(np.concatenate([np.zeros(size), precision]))
        gram[:size, :size] = self.gram
        moment = np.concatenate([self.moment, precision * start])
        theta = np.concatenate([self.theta, start])
        self._arrays.resize(np.column_stack([gram, moment]), theta)
        self._places |= {name: size + k for k, name in enumerate(new)}

    # -- the same by arrays ----------------------------------------------------------------------

    def absorb(self, share: FloatArray) -> None:
        """Add one sample's share to the equations, [d, d + 1]; see `share_of`."""
        rows = self._arrays.rows
        rows *= self.forgetting
        rows += share
        self._arrays.struct.n_samples = self.forgetting * self.n_samples + 1.0

    def take_in(self, row: FloatArray, target: float, weight: float) -> None:
        """Add one sample of *row*, [d], to the equations, by the kernel."""
        assert self.kernel is not None
        self._arrays.sample[:] = row
        self.kernel.absorb(self._arrays.call, target, weight)

    def absorb_many(self, gram: FloatArray, moment: FloatArray, n_samples: int) -> None:
        """Add the sums of *n_samples* samples, as old as the youngest of them."""
        kept = self.forgetting**n_samples
        rows = self._arrays.rows
        rows *= kept
        rows += np.column_stack([gram, moment])
        self._arrays.struct.n_samples = kept * self.n_samples + n_samples

    def solve(self) -> None:
        """Move θ towards the solution of the equations, from where it is."""
        if self.kernel is not None:
            self.kernel.solve(self._arrays.call)
            return
        equations = self._arrays.rows
        if self.shrink_to is not None:
            strength = self.shrinkage_samples * (self.shrink_to.energy() + _MIN_ENERGY)
            equations = equations.copy()
            diagonal = equations.reshape(-1)[:: len(equations) + 2]
            diagonal += strength
            equations[:, -1] += strength * self.shrink_to.theta
        self.theta[:] = _descend(equations, self.theta, self.sweeps)

    def energy(self) -> FloatArray:
        """Mean squared, weighted feature of a sample, [d]; 1 while there is at most one sample."""
        if self.n_samples <= 1.0:
            return np.ones(len(self.moment))
        return self.gram.diagonal() / self.n_samples

    def discount(self, factor: float) -> None:
        """Let everything learned so far count *factor* times as much."""
        self._arrays.rows[:] *= factor
        self._arrays.struct.n_samples *= factor

    # -- across a restart ------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that was learned, as plain JSON types; features go by their places."""
        return {
            "gram": self.gram.tolist(),
            "moment": self.moment.tolist(),
            "coefficients": self.theta.tolist(),
            "n_samples": self.n_samples,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave on a regressor of the same features, or change nothing.

        Raises:
            KeyError, TypeError, ValueError: it is not such a state.
        """
        size = len(self._places)
        gram = np.array(state["gram"], dtype=np.float64).reshape(size, size)
        moment = np.array(state["moment"], dtype=np.float64).reshape(size)
        theta = np.array(state["coefficients"], dtype=np.float64).reshape(size)
        n_samples = float(state["n_samples"])
        numbers = np.concatenate([gram.ravel(), moment, theta, [n_samples]])
        # A null in a file is read as NaN, which is below nothing.
        if not ((np.abs(numbers) < _LARGEST).all() and (theta >= 0).all()):
            raise ValueError("coefficients that no samples can lead to")
        self._arrays.resize(np.column_stack([gram, moment]), theta)
        self._arrays.struct.n_samples = n_samples

    def _row(self, x: dict[Any, Any]) -> FloatArray:
        row = np.zeros(len(self._places))
        for name, value in x.items():
            if name in self._places:
                row[self._places[name]] = value
        return row

    def _prior_precision(self, name: Any) -> float:
        if self.shrink_to is not None:
            return 0.0
        scale = self.prior_scale
        deviation = scale.get(name, 1.0) if isinstance(scale, dict) else scale
        return 1.0 / (deviation * deviation)


def share_of(row: FloatArray, target: float, weight: float) -> FloatArray:
    """What a sample adds to the equations: w·x·xᵀ and in the last column w·y·x, [d, d + 1]."""
    return np.multiply.outer(weight * row, np.concatenate((row, (target,))))


def absorb_in_all(
    regressors: Sequence[NonNegativeRLS], row: FloatArray, target: float, weight: float
) -> None:
    """Add one sample of *row*, [d], to the equations of each, which are of the same features."""
    if regressors[0].kernel is None:
        share = share_of(row, target, weight)
        for regressor in regressors:
            regressor.absorb(share)
        return
    for regressor in regressors:
        regressor.take_in(row, target, weight)


def _descend(equations: FloatArray, start: FloatArray, sweeps: int) -> list[float]:
    """Coordinate descent on θ >= 0. Plain floats: at eight features faster than arrays."""
    theta: list[float] = start.tolist()
    rows: list[list[float]] = equations.tolist()
    active = [(k, row, row[-1], row[k]) for k, row in enumerate(rows) if row[k] > _EMPTY]
    for _ in range(sweeps):
        for k, row, goal, pivot in active:
            # A row is longer than θ by its goal, which `map` leaves out.
            value = theta[k] + (goal - sum(map(mul, row, theta))) / pivot
            theta[k] = value if value > 0.0 else 0.0  # noqa: FURB136  (a fifth faster)
    return theta
