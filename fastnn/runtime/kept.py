"""Programs that are kept for the shapes that come again, within a limit of memory."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Hashable, Iterator, MutableMapping
from typing import Any, Protocol, TypeVar

from fastnn.errors import OptionError


class Sized(Protocol):
    """What tells its size."""

    @property
    def nbytes(self) -> int:
        """About how many bytes it holds alone."""


V = TypeVar("V", bound=Sized)

#: bytes of programs that a model, trainer or step keeps, if `FASTNN_PROGRAM_BYTES` says nothing
LIMIT = 256 * 2**20


def limit() -> int:
    """How many bytes of programs to keep at most in one place.

    >>> limit() == int(os.environ.get("FASTNN_PROGRAM_BYTES", 256 * 2**20))
    True
    """
    chosen = os.environ.get("FASTNN_PROGRAM_BYTES")
    if chosen is None:
        return LIMIT
    if not chosen.isdecimal():
        raise OptionError(f"FASTNN_PROGRAM_BYTES: expected a whole number of bytes, got {chosen!r}")
    return int(chosen)


class Kept(MutableMapping[Any, V]):
    """A dict of programs that forgets those which were not used for longest, beyond `limit`.

    The one that came last is always kept. A value under several keys counts once, and goes from all
    of them at once.

    >>> kept = Kept()
    >>> kept["a"] = memoryview(bytes(100))
    >>> len(kept), kept.nbytes
    (1, 100)
    """

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def __getitem__(self, key: Any) -> V:
        value = self._values[key]
        self._values.move_to_end(key)
        return value

    def __setitem__(self, key: Any, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        most = limit()
        while self.nbytes > most and (oldest := self._oldest()) is not value:
            for other in [k for k, v in self._values.items() if v is oldest]:
                del self._values[other]

    def _oldest(self) -> V:
        """The value that was not used, under any of its keys, for longest."""
        latest: dict[int, V] = {}
        for value in self._values.values():
            latest.pop(id(value), None)
            latest[id(value)] = value
        return next(iter(latest.values()))

    def __contains__(self, key: Any) -> bool:
        return key in self._values

    def __delitem__(self, key: Any) -> None:
        del self._values[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def clear(self) -> None:
        self._values.clear()

    @property
    def nbytes(self) -> int:
        """About how many bytes all of them hold."""
        return sum({id(v): v.nbytes for v in self._values.values()}.values())
