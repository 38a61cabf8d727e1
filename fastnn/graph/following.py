"""Numbers that follow from sizes which vary: what extents and fractions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnn.graph.assumptions import Assumptions


class Following:
    """An extent or a fraction.

    Attributes:
        of: what is assumed of the sizes.
        value: the number at the sizes at hand.
    """

    __slots__ = ()

    of: Assumptions
    value: Any


def follows(number: Any) -> bool:
    """Whether a number follows from sizes that vary."""
    return issubclass(type(number), Following)


def value_of(number: Any) -> Any:
    """A number at the sizes at hand, which is not noted: only for what does not depend on it."""
    return number.value if issubclass(type(number), Following) else number


def plain(number: Any) -> Any:
    """A number at the sizes at hand, for which it is taken."""
    return number.of.taken(number.value) if issubclass(type(number), Following) else number


def take_as_plain(kind: type[Following], names: tuple[str, ...]) -> None:
    """Operations that numbers of a kind do as plain ones."""
    for name in names:
        setattr(kind, f"__{name}__", _as_plain(f"__{name}__"))


def _as_plain(method: str) -> Callable[..., Any]:
    """An operation on plain numbers."""

    def operation(self: Any, *others: Any) -> Any:
        return getattr(plain(self), method)(*map(plain, others))

    return operation
