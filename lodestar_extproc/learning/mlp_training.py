"""Training of the perceptron: a function of the stored samples.

It is the only place that uses scikit-learn, imported where it runs: in a process of its own.
"""

from __future__ import annotations

import warnings

import numpy as np

from lodestar_extproc.features import N_FEATURES
from lodestar_extproc.learning.perceptron import Perceptron, Rows, inputs

KIND, TTFT_S = N_FEATURES, N_FEATURES + 1
"""Columns of a stored sample, after the features."""
STORED_WIDTH = N_FEATURES + 2

# As the paper's baseline and its public code have them: arXiv 2606.00946, gangmuk/Lodestar.
HIDDEN_LAYERS = (128, 128, 128)
LEARNING_RATE = 1e-3
L2 = 1e-5
BATCH = 256
EPOCHS = 20


def train(stored: Rows, n_kinds: int, seed: int) -> Perceptron:
    """Fit a network from scratch to samples [n, STORED_WIDTH]; seconds for 10,000."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.neural_network import MLPRegressor  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    rows = inputs(stored, stored[:, KIND].astype(np.intp), n_kinds)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(deviation > 0, deviation, np.float32(1.0))
    network = MLPRegressor(
        hidden_layer_sizes=HIDDEN_LAYERS,
        learning_rate_init=LEARNING_RATE,
        alpha=L2,
        batch_size=min(BATCH, len(rows)),
        max_iter=EPOCHS,
        random_state=seed,
    )
    with threadpool_limits(1), warnings.catch_warnings():
        # A fixed number of epochs is meant to end before convergence.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit((rows - mean) / scale, stored[:, TTFT_S])
    weights = tuple(np.asarray(w, np.float32) for w in network.coefs_)
    biases = tuple(np.asarray(b, np.float32) for b in network.intercepts_)
    return Perceptron(weights, biases, mean, scale, rows.min(axis=0), rows.max(axis=0))
