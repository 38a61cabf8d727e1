"""References that keep nothing alive, so that memory goes as soon as the last one that does is
gone, without waiting for Python to look for circles."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class weak(Generic[T]):
    """An attribute that does not keep its value alive.

    >>> class Part:
    ...     whole: weak[Any] = weak()
    >>> class Whole:
    ...     def __init__(self):
    ...         self.part = Part()
    ...         self.part.whole = self
    >>> whole = Whole()
    >>> whole.part.whole is whole
    True
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = f"_{name}_of"

    def __get__(self, owner: Any, kind: type | None = None) -> T:
        found: T | None = getattr(owner, self.key)()
        assert found is not None  # a part is used by its whole
        return found

    def __set__(self, owner: Any, value: T) -> None:
        setattr(owner, self.key, weakref.ref(value))


def weakly(method: Callable[..., T]) -> Callable[..., T]:
    """An object's method for a part of that object to call: it does not keep the object alive."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> T:
        found = reference()
        assert found is not None  # a part is used by its whole
        return found(*args)

    return call
