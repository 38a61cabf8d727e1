"""What was made already, by keys in which sizes that vary may stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnn.graph.extent import Extent
from fastnn.graph.following import follows
from fastnn.graph.fraction import Fraction


class Memo:
    """What was made already, by keys (tuples, nested maybe) that may have extents in them.

    Other than of a dict's, the hash of no extent is asked for: keys are compared one by one.
    """

    def __init__(self) -> None:
        self._plain: dict[Any, Any] = {}
        self._others: list[tuple[Any, Any]] = []  # whose keys have extents

    def _find(self, key: Any) -> Any:
        entries: Any = self._others
        if not _mentions(key):
            if key in self._plain:
                return self._plain[key]
        else:
            entries = [*self._plain.items(), *self._others]
        return next((value for other, value in entries if _same(key, other)), None)

    def __contains__(self, key: Any) -> bool:
        return self._find(key) is not None

    def __getitem__(self, key: Any) -> Any:
        return self._find(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        if _mentions(key):
            self._others.append((key, value))
        else:
            self._plain[key] = value

    def values(self) -> list[Any]:
        """All that was made."""
        return [*self._plain.values(), *(value for _, value in self._others)]

    def __len__(self) -> int:
        return len(self._plain) + len(self._others)

    def keep(self, wanted: Callable[[Any, Any], bool]) -> None:
        """Forget all but the keys and values that are wanted."""
        self._plain = {key: value for key, value in self._plain.items() if wanted(key, value)}
        self._others = [entry for entry in self._others if wanted(*entry)]


def _mentions(key: Any) -> bool:
    return any(map(_mentions, key)) if type(key) is tuple else follows(key)


def _same(one: Any, other: Any) -> bool:
    if type(one) is tuple and type(other) is tuple:
        return len(one) == len(other) and all(map(_same, one, other))
    numbers = all(type(x) in (int, float, Extent, Fraction) for x in (one, other))
    return bool(one == other) if numbers or type(one) is type(other) is str else one is other
