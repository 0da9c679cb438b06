"""Forest: regression trees as arrays, one value that never changes; all rows are descended at once.

It knows neither how the trees were grown nor what their answers mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.endpoint import FloatArray

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees whose answers are averaged.

    Attributes:
        feature: [n_nodes], the column a node compares; any for a leaf.
        threshold: [n_nodes], a row goes left where its feature is not above it.
        children: [n_nodes, 2], left and right; a leaf is its own child.
        value: [n_nodes], the answer of a leaf.
        roots: [n_trees].
        depth: steps from the root after which every row has reached its leaf.
    """

    feature: Index
    threshold: FloatArray
    children: Index
    value: FloatArray
    roots: Index
    depth: int

    def values(self, rows: FloatArray) -> FloatArray:
        """The mean answer of all trees to rows [n, d], [n]."""
        cells, width = np.ascontiguousarray(rows).reshape(-1), rows.shape[1]
        # Each call costs more than the arithmetic: flat arrays, and takes instead of indexing.
        starts = np.repeat(np.arange(len(rows)) * width, len(self.roots))
        nodes, children = np.tile(self.roots, len(rows)), self.children.reshape(-1)
        for _ in range(self.depth):
            found = cells.take(starts + self.feature.take(nodes))
            nodes = children.take(2 * nodes + (found > self.threshold.take(nodes)))
        answers = self.value.take(nodes).reshape(len(rows), len(self.roots))
        mean: FloatArray = answers.mean(axis=1)
        return mean

    def state(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "feature": self.feature.tolist(),
            "threshold": self.threshold.tolist(),
            "children": self.children.tolist(),
            "value": self.value.tolist(),
            "roots": self.roots.tolist(),
            "depth": self.depth,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], width: int) -> Forest:
        """Undo `state`, for rows of *width*.

        Raises:
            KeyError, TypeError, ValueError: it is not such a state.
        """
        n_nodes = len(state["value"])
        forest = cls(
            np.array(state["feature"], np.intp).reshape(n_nodes),
            np.array(state["threshold"], np.float64).reshape(n_nodes),
            np.array(state["children"], np.intp).reshape(n_nodes, 2),
            np.array(state["value"], np.float64),
            np.array(state["roots"], np.intp).reshape(-1),
            int(state["depth"]),
        )
        places = np.concatenate([forest.roots, forest.children.reshape(-1)])
        for indices, size in ((places, n_nodes), (forest.feature, width)):
            if not ((indices >= 0) & (indices < size)).all():
                raise ValueError("a forest that leads nowhere")
        if not (len(forest.roots) and 0 <= forest.depth <= n_nodes):
            raise ValueError("a forest without trees, or deeper than it has nodes")
        if not np.isfinite(forest.value).all():
            raise ValueError("a forest that answers no number")
        return forest
