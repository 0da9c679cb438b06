"""SampleSums: what was learned from samples, as sums that others can add to theirs.

For linear regression the sums are sufficient: adding them is learning from the samples themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.learning.sample import TrainingSample


@dataclass(slots=True)
class EndpointSums:
    """Over samples of one endpoint.

    Attributes:
        gram, moment: [d, d] and [d], the sums of w·x·xᵀ and of w·y·x.
        lowest, highest: of each feature, [N_FEATURES].
    """

    address: str
    accelerator: str
    gram: FloatArray
    moment: FloatArray
    lowest: FloatArray
    highest: FloatArray
    n_samples: int = 1

    def add(self, sample: TrainingSample, gram: FloatArray, moment: FloatArray) -> None:
        """One more, with its share of the equations."""
        self.gram = self.gram + gram
        self.moment = self.moment + moment
        self.lowest = np.minimum(self.lowest, sample.features)
        self.highest = np.maximum(self.highest, sample.features)
        self.n_samples += 1


class SampleSums:
    """Since they were last taken, by endpoint."""

    def __init__(self) -> None:
        self._by_address: dict[str, EndpointSums] = {}

    def add(self, sample: TrainingSample, gram: FloatArray, moment: FloatArray) -> None:
        """*sample* was learned; its share of the equations is as given."""
        known = self._by_address.get(sample.address)
        if known is not None and known.accelerator == sample.accelerator:
            known.add(sample, gram, moment)
            return
        features = sample.features
        self._by_address[sample.address] = EndpointSums(
            sample.address, sample.accelerator, gram, moment, features, features
        )

    def take(self) -> list[EndpointSums]:
        """All of them; they begin anew."""
        taken = list(self._by_address.values())
        self._by_address = {}
        return taken
