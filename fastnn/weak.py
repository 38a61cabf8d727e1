"""References that keep nothing alive, so that memory goes as soon as the last one that does is
gone, without waiting for Python to look for circles."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def there(reference: Callable[[], T | None], what: str) -> T:
    """What a weak reference leads to.

    Args:
        reference: the reference.
        what: what asks for it.

    Raises ReferenceError where it is gone.
    """
    found = reference()
    if found is None:
        raise ReferenceError(
            f"{what} was used after the object that it is a part of had gone; keep a reference to "
            "that object for as long as its part is used"
        )
    return found


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
        reference: Callable[[], T | None] = getattr(owner, self.key)
        found = reference()
        if found is None:
            return there(reference, f"a {type(owner).__name__} ({self.key[1:-3]})")
        return found

    def __set__(self, owner: Any, value: T) -> None:
        setattr(owner, self.key, weakref.ref(value))


def weakly(method: Callable[..., T]) -> Callable[..., T]:
    """An object's method for a part of that object to call: it does not keep the object alive."""
    reference = weakref.WeakMethod(method)
    what = f"{method.__qualname__} of a part"

    def call(*args: Any) -> T:
        return there(reference, what)(*args)

    return call
