"""ComputedOnce: an attribute that is computed when it is first asked for, and then kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Self, TypeVar, overload

Owner = TypeVar("Owner")
Value = TypeVar("Value")


class ComputedOnce(Generic[Owner, Value]):
    """`functools.cached_property` without the lock that it takes until Python 3.12.

    One thread decides, and taking it costs as much as what is computed.

    >>> class Squares:
    ...     @ComputedOnce
    ...     def first(self) -> list[int]:
    ...         return [1, 4, 9]
    >>> squares = Squares()
    >>> squares.first is squares.first, list(vars(squares))
    (True, ['first'])
    """

    def __init__(self, compute: Callable[[Owner], Value]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, kind: type[Owner]) -> Self: ...

    @overload
    def __get__(self, owner: Owner, kind: type[Owner]) -> Value: ...

    def __get__(self, owner: Owner | None, kind: type[Owner]) -> Self | Value:
        if owner is None:
            return self
        # What stands in the instance is found before this is asked again.
        value = owner.__dict__[self._name] = self._compute(owner)
        return value
