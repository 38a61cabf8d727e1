"""A property that is computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class cached(Generic[T]):
    """`functools.cached_property` without a lock.

    Up to Python 3.11 that has one lock for all objects of a class. A process that is forked while
    another thread holds it would wait for ever. Without it two threads may compute a value at once:
    either is kept.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function, self.__doc__ = function, function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, owner: None, kind: type) -> cached[T]: ...

    @overload
    def __get__(self, owner: Any, kind: type | None = None) -> T: ...

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        value = self.function(owner)
        owner.__dict__[self.name] = value
        return value
