"""A piece of memory that the host and devices each may hold a copy of."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Holder(Protocol):
    """A device's memory."""

    device: str

    def allocate(self, size: int, name: str) -> Any:
        """So many bytes, all zero; `name` says what for."""

    def upload(self, host: np.ndarray, copy: Any) -> None:
        """Host to device; `host` may be written to as soon as this returns."""

    def download(self, copy: Any, host: np.ndarray) -> None:
        """Device to host, once everything before on the device is done."""


class Segment:
    """One copy on the host, one on each device that wanted it, and a note of which are up to date.

    Args:
        name: what error messages call it.
        host: the host's copy.
    """

    def __init__(self, name: str, host: np.ndarray):
        self.name, self.host = name, host
        self.copies: dict[Holder, Any] = {}
        self.current: set[Holder | None] = {None}  # None: the host
        self.shape, self.dtype = host.shape, host.dtype

    @property
    def at_home(self) -> bool:
        """Whether the host alone has the newest contents, so that it may read and write."""
        return len(self.current) == 1 and None in self.current

    def for_reading(self) -> np.ndarray:
        """The host's copy, up to date."""
        if None not in self.current:
            holder = next(iter(self.current))
            assert holder is not None
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
        if holder not in self.copies:
            self.copies[holder] = holder.allocate(self.host.nbytes, self.name)
        if holder not in self.current:
            holder.upload(self.for_reading(), self.copies[holder])
            self.current.add(holder)
        if writes:
            self.current = {holder}
        return self.copies[holder]

    def replace(self, host: np.ndarray) -> None:
        """New contents from the host, of the same shape and element type."""
        self.host, self.current = host, {None}

    def forget(self, holder: Holder) -> None:
        """Give up a device's copy."""
        if holder in self.current and len(self.current) == 1:
            self.for_reading()
        self.current.discard(holder)
        self.copies.pop(holder, None)
