"""Recursive least squares whose coefficients cannot turn negative, as a River regressor.

`NormalEquations` is the arithmetic on arrays; `NonNegativeRLS` gives it River's face. Neither
knows what the features mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import mul
from typing import Any

import numpy as np
from river import base

from lodestar_extproc.endpoint import FloatArray

_EMPTY = 1e-12


class NormalEquations:
    """Least squares as A·θ = g, forgetting geometrically, solved for θ >= 0.

    Args:
        prior: [d], θ before any sample.
        prior_scale: [d], standard deviations of the prior, which fades with the samples; None for
            no prior beyond the first θ.
        forgetting: factor on the past at each sample; memory is about 1/(1 - forgetting) samples.
    """

    def __init__(
        self, prior: FloatArray, prior_scale: FloatArray | None, forgetting: float
    ) -> None:
        precision = np.zeros(len(prior)) if prior_scale is None else 1.0 / np.square(prior_scale)
        self.forgetting = forgetting
        self.gram: FloatArray = np.diag(precision)
        self.moment: FloatArray = precision * prior
        self.coefficients: FloatArray = np.array(prior, dtype=np.float64)
        self.n_samples = 0.0

    def absorb(self, gram: FloatArray, moment: FloatArray) -> None:
        """Add one sample: w·x·xᵀ [d, d] and w·y·x [d]."""
        self.gram *= self.forgetting
        self.gram += gram
        self.moment *= self.forgetting
        self.moment += moment
        self.n_samples = self.forgetting * self.n_samples + 1.0

    def energy(self) -> FloatArray:
        """Mean squared, weighted feature of a sample, [d]; 1 while there is at most one."""
        if self.n_samples <= 1.0:
            return np.ones(len(self.moment))
        return self.gram.diagonal() / self.n_samples

    def discount(self, factor: float) -> None:
        """Let everything learned so far count *factor* times as much."""
        self.gram *= factor
        self.moment *= factor
        self.n_samples *= factor

    def solve(self, sweeps: int) -> None:
        """Move θ towards the solution, from where it is."""
        self.coefficients = _descend(self.gram, self.moment, self.coefficients, sweeps)

    def solve_towards(self, target: FloatArray, strength: FloatArray, sweeps: int) -> None:
        """As `solve`, with *strength* [d] pulling θ to *target* [d]."""
        gram = self.gram.copy()
        gram.flat[:: len(gram) + 1] += strength
        moment = self.moment + strength * target
        self.coefficients = _descend(gram, moment, self.coefficients, sweeps)

    def state(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "gram": self.gram.tolist(),
            "moment": self.moment.tolist(),
            "coefficients": self.coefficients.tolist(),
            "n_samples": self.n_samples,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], forgetting: float) -> NormalEquations:
        """Undo `state`.

        Raises:
            KeyError, TypeError, ValueError: it is not such a state.
        """
        coefficients = np.array(state["coefficients"], dtype=np.float64)
        restored = cls(coefficients, None, forgetting)
        size = len(coefficients)
        restored.gram = np.array(state["gram"], dtype=np.float64).reshape(size, size)
        restored.moment = np.array(state["moment"], dtype=np.float64).reshape(size)
        restored.n_samples = float(state["n_samples"])
        return restored


def _descend(gram: FloatArray, moment: FloatArray, start: FloatArray, sweeps: int) -> FloatArray:
    """Coordinate descent on θ >= 0. Plain floats: at eight features faster than arrays."""
    theta: list[float] = start.tolist()
    goals: list[float] = moment.tolist()
    rows: list[list[float]] = gram.tolist()
    coordinates = [(k, rows[k], goals[k], rows[k][k]) for k in range(len(theta))]
    active = [c for c in coordinates if c[3] > _EMPTY]
    for _ in range(sweeps):
        for k, row, goal, pivot in active:
            value = theta[k] + (goal - sum(map(mul, row, theta))) / pivot
            theta[k] = value if value > 0.0 else 0.0  # noqa: FURB136  (a fifth faster)
    return np.array(theta)


class NonNegativeRLS(base.Regressor):  # type: ignore[misc]
    """Linear regression with non-negative coefficients, by recursive least squares.

    For targets that are sums of costs: more of a feature can never lower the prediction. There is
    no intercept; a constant feature serves as one.

    Solved by sequential coordinate descent (Franc, Hlaváč, Navara 2005,
    https://doi.org/10.1007/11556121_50).

    Args:
        forgetting: factor on the weight of the past at each sample; 1 never forgets.
        prior: coefficients before any sample; 0 for features it does not name.
        prior_scale: standard deviation of the prior, the same for all coefficients.
        sweeps: coordinate descent sweeps a sample, from the last solution.

    >>> model = NonNegativeRLS(forgetting=1.0, prior_scale=100.0, sweeps=200)
    >>> for tokens, steps in [(1, 1), (2, 1), (3, 5), (4, 2)]:
    ...     x = {"tokens": tokens, "steps": steps}
    ...     model.learn_one(x, 0.15 * tokens + 0.02 * steps)
    >>> round(model.predict_one({"tokens": 10, "steps": 5}), 3)
    1.6
    """

    def __init__(
        self,
        forgetting: float = 0.998,
        prior: dict[str, float] | None = None,
        prior_scale: float = 1.0,
        sweeps: int = 4,
    ) -> None:
        self.forgetting = forgetting
        self.prior = prior
        self.prior_scale = prior_scale
        self.sweeps = sweeps
        self._index: dict[Any, int] = {}
        self._equations = NormalEquations(np.zeros(0), np.zeros(0), forgetting)

    @property
    def coefficients(self) -> dict[Any, float]:
        """The weight of each feature."""
        return {name: float(self._equations.coefficients[k]) for name, k in self._index.items()}

    def learn_one(self, x: dict[Any, Any], y: float, w: float = 1.0) -> None:
        """Update with features *x*, target *y* and weight *w*."""
        self._admit(x)
        row = self._row(x)
        weighted = w * row
        self._equations.absorb(np.multiply.outer(weighted, row), y * weighted)
        self._equations.solve(self.sweeps)

    def predict_one(self, x: dict[Any, Any]) -> float:
        """The target of *x*; a feature never seen counts with its prior."""
        prior = self.prior or {}
        unseen = sum(prior.get(name, 0.0) * v for name, v in x.items() if name not in self._index)
        return float(self._row(x) @ self._equations.coefficients) + float(unseen)

    def _row(self, x: dict[Any, Any]) -> FloatArray:
        row = np.zeros(len(self._index))
        for name, value in x.items():
            if name in self._index:
                row[self._index[name]] = value
        return row

    def _admit(self, x: dict[Any, Any]) -> None:
        """Make room for new features, in an order that does not depend on the dict's."""
        new = sorted((name for name in x if name not in self._index), key=str)
        if not new:
            return
        prior = self.prior or {}
        old, size = self._equations, len(self._index)
        start = np.array([prior.get(name, 0.0) for name in new])
        scale = np.full(len(new), self.prior_scale)
        grown = NormalEquations(
            np.concatenate([old.coefficients, start]),
            np.concatenate([np.ones(size), scale]),
            self.forgetting,
        )
        grown.gram[:size, :size] = old.gram
        grown.moment[:size] = old.moment
        grown.n_samples = old.n_samples
        self._equations = grown
        self._index |= {name: size + k for k, name in enumerate(new)}
