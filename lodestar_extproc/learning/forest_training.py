"""Growing the residual's trees: a function of what was grown before and of a batch of samples.

It is the only place that uses River's trees, imported where it runs: in a process of its own, for
they cost milliseconds a sample. What comes back is their compiled form, and themselves as bytes.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np

from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.features import N_FEATURES
from lodestar_extproc.learning.forest import Forest

KIND, RESIDUAL = N_FEATURES, N_FEATURES + 1
"""Columns of a stored sample, after the features."""
WIDTH = N_FEATURES + 1
"""Columns the trees see."""

# Chosen on recorded runs of simulated fleets: more or deeper trees gained nothing.
N_TREES = 5
MAX_DEPTH = 6
GRACE_SAMPLES = 200
FEATURE_SHARE = 0.6
LOG_STEP = 0.1
"""Splits are sought between features a tenth apart: it bounds what River keeps and compares."""


@dataclass(frozen=True, slots=True)
class Grown:
    """An ensemble after a batch.

    Attributes:
        ensemble: River's own object, for the next batch only: never read from a file.
        forest: what it predicts by.
    """

    ensemble: bytes
    forest: Forest


def grow(ensemble: bytes | None, samples: FloatArray, seed: int) -> Grown:
    """Teach samples [n, WIDTH + 1], oldest first, to *ensemble*; None begins one.

    An adaptive random forest (Gomes et al. 2018): Hoeffding trees, each replaced when its error
    drifts. It sees log(1 + feature), for features differ by orders of magnitude. 0.5 ms a sample.
    """
    from river.forest import ARFRegressor  # noqa: PLC0415
    from river.tree.splitter import QOSplitter  # noqa: PLC0415

    trees = (
        ARFRegressor(
            n_models=N_TREES,
            max_depth=MAX_DEPTH,
            grace_period=GRACE_SAMPLES,
            max_features=FEATURE_SHARE,
            aggregation_method="mean",
            leaf_prediction="mean",
            splitter=QOSplitter(radius=LOG_STEP),
            seed=seed,
        )
        if ensemble is None
        else pickle.loads(ensemble)  # noqa: S301  (our own, from the training before)
    )
    rows = np.log1p(np.maximum(0.0, samples[:, :WIDTH])).tolist()
    for row, residual in zip(rows, samples[:, RESIDUAL].tolist(), strict=True):
        trees.learn_one(dict(enumerate(row)), residual)
    return Grown(pickle.dumps(trees), compiled(trees))


def compiled(trees: Any) -> Forest:
    """The arrays, for features as they are, of River's trees whose leaves answer their mean."""
    nodes: list[tuple[int, float, int, int, float]] = []
    roots, depths = zip(*(_add(tree._root, nodes) for tree in trees), strict=True)  # noqa: SLF001
    feature, threshold, left, right, value = zip(*nodes, strict=True)
    return Forest(
        np.array(feature, np.intp),
        np.expm1(threshold),
        np.stack([left, right], axis=1).astype(np.intp),
        np.array(value),
        np.array(roots, np.intp),
        max(depths),
    )


def _add(node: Any, nodes: list[tuple[int, float, int, int, float]]) -> tuple[int, int]:
    """Append *node* and all below it; its place and its depth."""
    place = len(nodes)
    children = getattr(node, "children", None)
    if not children:
        value = 0.0 if node is None else float(node.prediction({}, tree=None))
        nodes.append((0, 0.0, place, place, value))
        return place, 0
    nodes.append((0, 0.0, place, place, 0.0))
    (left, left_depth), (right, right_depth) = (_add(child, nodes) for child in children)
    nodes[place] = (node.feature, node.threshold, left, right, 0.0)
    return place, 1 + max(left_depth, right_depth)
