"""Programs that are kept for the shapes that come again, within a limit of memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, MutableMapping
from typing import Any, Generic, Protocol, TypeVar

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
    if not chosen:
        return LIMIT
    if not chosen.isdecimal():
        raise OptionError(f"FASTNN_PROGRAM_BYTES: expected a whole number of bytes, got {chosen!r}")
    return int(chosen)


class _Entry(Generic[V]):
    __slots__ = ("used", "value")

    def __init__(self, value: V, used: int):
        self.value, self.used = value, used


class Kept(MutableMapping[Any, V]):
    """A dict of programs that forgets those which were not used for longest, beyond `limit`.

    The one that came last is always kept. A value under several keys counts once, and goes from all
    of them at once.

    >>> kept = Kept()
    >>> kept["a"] = memoryview(bytes(100))
    >>> len(kept), kept.nbytes
    (1, 100)
    """

    # A plain dict and a note of each last use: no interrupt (in the hash of a key, say) and
    # no other thread finds the two apart.

    def __init__(self) -> None:
        self._entries: dict[Any, _Entry[V]] = {}
        self._uses = itertools.count()
        self._bytes = 0  # no less than all hold, unless some have grown since

    def __getitem__(self, key: Any) -> V:
        entry = self._entries[key]
        entry.used = next(self._uses)
        return entry.value

    def get(self, key: Any, default: Any = None) -> Any:  # not by an exception, as the base's
        entry = self._entries.get(key)
        if entry is None:
            return default
        entry.used = next(self._uses)
        return entry.value

    def __setitem__(self, key: Any, value: V) -> None:
        self._entries[key] = _Entry(value, next(self._uses))
        most = limit()
        self._bytes += value.nbytes
        if self._bytes <= most and len(self._entries) % 64:  # not counted anew for each
            return
        self._bytes = self.nbytes
        while self.nbytes > most and (oldest := self._oldest()) is not value:
            for other, entry in list(self._entries.items()):
                if entry.value is oldest:
                    self._entries.pop(other, None)

    def _oldest(self) -> V:
        """The value that was not used, under any of its keys, for longest."""
        latest: dict[int, _Entry[V]] = {}
        for entry in list(self._entries.values()):
            known = latest.get(id(entry.value))
            if known is None or known.used < entry.used:
                latest[id(entry.value)] = entry
        return min(latest.values(), key=lambda entry: entry.used).value

    def __contains__(self, key: Any) -> bool:
        return key in self._entries

    def __delitem__(self, key: Any) -> None:
        del self._entries[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        self._entries.clear()

    @property
    def nbytes(self) -> int:
        """About how many bytes all of them hold."""
        values = {id(e.value): e.value for e in list(self._entries.values())}
        return sum(value.nbytes for value in values.values())
