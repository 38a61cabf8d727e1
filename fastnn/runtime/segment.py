"""A piece of memory that the host and devices each may hold a copy of."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from fastnn.errors import OutOfMemoryError


def aligned_zeros(size: int, dtype: Any = np.uint8) -> np.ndarray:
    """An array of `size` elements that begins on a page boundary, filled with zeros.

    Raises OutOfMemoryError where there is not as much.
    """
    item = np.dtype(dtype).itemsize
    try:
        raw = np.zeros(size * item + 4096, np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: more than can be counted
        raise OutOfMemoryError(
            f"the machine is out of memory: {size * item:,} bytes were requested; use a smaller "
            "model, a smaller batch_size or shorter sequences"
        ) from error
    start = -raw.ctypes.data % 4096
    return raw[start : start + size * item].view(dtype)


class Holder(Protocol):
    """A device's memory."""

    device: str

    def allocate(self, size: int, name: str) -> Any:
        """So many bytes, all zero; `name` says what for."""

    def upload(self, host: np.ndarray, copy: Any, offset: int = 0) -> None:
        """Host to device; `host` may be written to as soon as this returns."""

    def download(self, copy: Any, host: np.ndarray, offset: int = 0) -> None:
        """Device to host, once everything before on the device is done."""


class Segment:
    """One copy on the host, one on each device that wanted it, and a note of which are up to date.

    Args:
        name: what error messages call it.
        host: the host's copy.
        blank: `host` is all zero, as a new copy on a device is; nobody has used a copy yet.

    Attributes:
        foreign: whether a device's copy belongs to somebody else, so that it must not be written.
    """

    foreign = False

    def __init__(self, name: str, host: np.ndarray, blank: bool = False):
        self.name, self.host, self.blank = name, host, blank
        self.copies: dict[Any, Any] = {}
        self.current: set[Any] = {None}  # who is up to date; None: the host

    @property
    def on_host(self) -> bool:
        """Whether the host alone has the newest contents, so that it may read and write."""
        return self.current == {None}

    def for_reading(self) -> np.ndarray:
        """The host's copy, up to date."""
        self.blank = False
        if None not in self.current:
            holder = next(iter(self.current))
            holder.download(self.copies[holder], self.host)
            self.current.add(None)
        return self.host

    def for_writing(self) -> np.ndarray:
        """The host's copy, up to date; the others count as outdated from now on."""
        self.for_reading()
        self.current = {None}
        return self.host

    def on(self, holder: Holder, writes: bool = False) -> Any:
        """A device's copy, up to date; with `writes`, all others count as outdated from now on."""
        copy = self.place(holder)
        if holder not in self.current:
            holder.upload(self.for_reading(), copy)
            self.current.add(holder)
        if writes:
            self.current, self.blank = {holder}, False
        return copy

    def place(self, holder: Holder) -> Any:
        """A device's copy, up to date or not: where it will be."""
        if holder not in self.copies:
            self.copies[holder] = holder.allocate(self.host.nbytes, self.name)
            if self.blank:
                self.current.add(holder)
        return self.copies[holder]

    def read(self, holder: Holder, offset: int, size: int) -> np.ndarray:
        """Some bytes, from wherever they are."""
        if None in self.current or holder not in self.current:
            return self.for_reading().reshape(-1).view(np.uint8)[offset : offset + size].copy()
        found = np.empty(size, np.uint8)
        holder.download(self.copies[holder], found, offset)
        return found

    def write(self, holder: Holder, offset: int, contents: np.ndarray) -> None:
        """Change some bytes of a device's copy; all others count as outdated from now on."""
        holder.upload(contents, self.on(holder, writes=True), offset)

    def replace(self, host: np.ndarray) -> None:
        """New contents from the host, of the same size."""
        self.host, self.current, self.blank = host, {None}, False
