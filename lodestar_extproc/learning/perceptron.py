"""Perceptron: a trained network with its scaling and bounds, as one value that never changes.

It knows which features go in; not where the weights came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.features import FEATURES
from lodestar_extproc.learning.predictor import MIN_TTFT_S

Rows = NDArray[np.float32]

# The inputs of arXiv 2606.00946; each accelerator type has an input of its own after them.
INPUTS = (
    "prompt_tokens",
    "prefill_requests",
    "decode_requests",
    "kv_usage_ratio",
    "running_requests",
    "waiting_requests",
    "queued_prompt_tokens",
    "decode_context_tokens",
    "hit_ratio",
)
COLUMNS = np.array([FEATURES.index(name) for name in INPUTS])
PROMPT_TOKENS = INPUTS.index("prompt_tokens")
HIT_RATIO = INPUTS.index("hit_ratio")


def inputs(features: NDArray[Any], kinds: NDArray[np.intp], n_kinds: int) -> Rows:
    """The inputs [n, d] of feature rows [n, N_FEATURES] on accelerators of *kinds* [n].

    A kind outside 0 to *n_kinds* has no input set.
    """
    one_hot = kinds[:, None] == np.arange(n_kinds)
    return np.concatenate([features[:, COLUMNS], one_hot], axis=1, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Perceptron:
    """ReLU layers from scaled inputs to seconds; all that a prediction depends on.

    Attributes:
        weights, biases: one matrix [n_in, n_out] and one vector [n_out] a layer.
        mean, scale, lowest, highest: [d], of the inputs it was trained on.
    """

    weights: tuple[Rows, ...]
    biases: tuple[Rows, ...]
    mean: Rows
    scale: Rows
    lowest: Rows
    highest: Rows

    def ttft_s(self, rows: Rows) -> FloatArray:
        """Seconds for inputs [n, d]; beyond the trained range as at its edge. [n]."""
        x = (rows.clip(self.lowest, self.highest) - self.mean) / self.scale
        for weights, biases in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weights + biases, 0.0)
        ttft_s = (x @ self.weights[-1] + self.biases[-1])[:, 0].astype(np.float64)
        return np.maximum(MIN_TTFT_S, ttft_s)

    def state(self) -> dict[str, Any]:
        """As plain JSON types."""
        layered = {"weights": self.weights, "biases": self.biases}
        kept: dict[str, Any] = {k: [a.tolist() for a in v] for k, v in layered.items()}
        flat = (f.name for f in fields(self) if f.name not in layered)
        return kept | {name: getattr(self, name).tolist() for name in flat}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Perceptron:
        """Undo `state`.

        Raises:
            KeyError, TypeError, ValueError: it is not such a state.
        """
        with np.errstate(over="ignore"):  # a number that is too large becomes infinite
            weights, biases = (
                tuple(np.array(layer, np.float32) for layer in state[name])
                for name in ("weights", "biases")
            )
            mean, scale, lowest, highest = (
                np.array(state[name], np.float32) for name in ("mean", "scale", "lowest", "highest")
            )
        network = cls(weights, biases, mean, scale, lowest, highest)
        with np.errstate(all="ignore"):
            answer = network.ttft_s(np.stack([mean, lowest, highest, scale]))
        if mean.ndim != 1 or not np.isfinite(answer).all():
            raise ValueError("a network that answers no number")
        return network
