"""Settings that are mappings: priorities of objectives, and the models asked for instead of others.

They know what is written and what it means; not where a name comes from.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from lodestar_extproc.config.scalars import number

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping


class MappedSetting(ABC):
    """A frozen value that is written as a mapping.

    Attributes:
        TAKES: what it takes, in words.
    """

    __slots__ = ()
    TAKES: ClassVar[str]

    @classmethod
    @abstractmethod
    def read(cls, written: Mapping[str, object]) -> Self:
        """The value *written*.

        Raises:
            ValueError: it is no such mapping; says what is wrong.
        """

    @abstractmethod
    def __len__(self) -> int:
        """How many keys were written."""


@dataclass(frozen=True, slots=True)
class Priorities(MappedSetting):
    """The priority of each objective; of one not named, 0."""

    TAKES = "a mapping of objectives to whole numbers"
    of_objectives: tuple[tuple[str, int], ...] = ()

    @classmethod
    def read(cls, written: Mapping[str, object]) -> Self:
        return cls(tuple((name, _whole(name, given)) for name, given in written.items()))

    def __len__(self) -> int:
        return len(self.of_objectives)

    def of(self, objective: str) -> int:
        """The priority of *objective*.

        >>> Priorities((("chat", 2), ("batch", -1))).of("batch")
        -1
        """
        return next((priority for name, priority in self.of_objectives if name == objective), 0)


NO_PRIORITIES = Priorities()


def _whole(objective: str, given: object) -> int:
    # 2.0 and "2" too: Envoy's own dumps may write a number so.
    whole = number(given)
    if whole is not None and whole.is_integer():
        return int(whole)
    raise ValueError(f"the priority of {objective} is no whole number")


Targets = tuple[tuple[str, float], ...]
"""Models and their weights."""


@dataclass(frozen=True, slots=True)
class ModelRewrites(MappedSetting):
    """The models that engines are asked for in place of the one a client names."""

    TAKES = "a mapping of models to another model's name, or to a mapping of names to weights"
    of_models: tuple[tuple[str, Targets], ...] = ()

    @classmethod
    def read(cls, written: Mapping[str, object]) -> Self:
        return cls(tuple((model, _targets(model, given)) for model, given in written.items()))

    def __len__(self) -> int:
        return len(self.of_models)

    def target(self, model: str, rng: random.Random) -> str:
        """What to ask for instead of *model*: one of its targets, by weight; else *model* itself.

        >>> import random
        >>> split = ModelRewrites.read({"chat": {"v1": 90, "v2": 10}, "old": "new"})
        >>> split.target("old", random.Random(0)), split.target("other", random.Random(0))
        ('new', 'other')
        """
        targets = next((targets for name, targets in self.of_models if name == model), ())
        if len(targets) < 2:
            return targets[0][0] if targets else model
        names, weights = zip(*targets, strict=True)
        (chosen,) = rng.choices(names, weights)
        return str(chosen)


NO_REWRITES = ModelRewrites()


def _targets(model: str, given: object) -> Targets:
    if isinstance(given, str) and given:
        return ((given, 1.0),)
    if not isinstance(given, dict) or not given:
        raise ValueError(f"what {model} is rewritten to is no name and no mapping of weights")
    targets = tuple((str(name), _weight(name, weight)) for name, weight in given.items())
    if sum(weight for _, weight in targets) <= 0:
        raise ValueError(f"all weights of {model} are 0")
    return targets


def _weight(name: object, weight: object) -> float:
    parsed = number(weight)
    if parsed is None or not 0 <= parsed < math.inf:
        raise ValueError(f"the weight of {name} is no number of at least 0")
    return parsed
