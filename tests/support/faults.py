"""All faults that the bench knows, by what they strike."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import faults_of_engines
import faults_of_files
import faults_of_service
import faults_of_sharing
import faults_of_wire
from fault import Fault

FAULTS: tuple[Fault, ...] = (
    *faults_of_service.FAULTS,
    *faults_of_engines.FAULTS,
    *faults_of_files.FAULTS,
    *faults_of_wire.FAULTS,
    *faults_of_sharing.FAULTS,
)


def drawn_pairs(faults: Sequence[Fault], n: int, seed: int) -> list[tuple[Fault, ...]]:
    """*n* pairs of faults that strike different parts of a service of one form."""
    apart = [
        pair
        for pair in itertools.combinations(faults, 2)
        if pair[0].part != pair[1].part and pair[0].form is pair[1].form
    ]
    return random.Random(seed).sample(apart, min(n, len(apart)))
