"""Memory beside a page that may not be touched: who reads or writes past an array ends the process.

Guards of numbers show only writes, and only those that change something.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
from typing import Any

import numpy as np

#: what is in the rest of a piece
FILL = 0xA5
_C = ctypes.CDLL(None, use_errno=True)
_C.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Pages:
    """Pieces of memory between forbidden pages, which are used again.

    By turns all arrays of a call end, to the byte, before a forbidden page, and begin after one.
    """

    def __init__(self) -> None:
        self.free: dict[int, list[np.ndarray]] = {}
        self.at_end = itertools.cycle((True, False))

    def run(self, function: Any, operands: dict[str, Any]) -> None:
        """Call a function with its arrays in such memory; what it leaves there is copied back."""
        at_end, moved, rests = next(self.at_end), dict(operands), []
        taken: list[np.ndarray] = []
        for name, array in operands.items():
            if isinstance(array, np.ndarray):
                piece = self._take(array.nbytes)
                begin = piece.size - array.nbytes if at_end else 0
                end = begin + array.nbytes
                taken.append(piece)
                rests += [(name, piece[:begin]), (name, piece[end:])]
                moved[name] = piece[begin:end].view(array.dtype).reshape(array.shape)
                moved[name][...] = array
        function(**moved)
        for name, rest in rests:
            assert (rest == FILL).all(), f"{name}: memory beside it was written"
        for name, array in moved.items():
            if array is not operands[name]:
                operands[name][...] = array
        for piece in taken:
            self.free[piece.size].append(piece)

    def _take(self, size: int) -> np.ndarray:
        size = mmap.PAGESIZE << (max(-(-size // mmap.PAGESIZE), 1) - 1).bit_length()
        free = self.free.setdefault(size, [])
        piece = free.pop() if free else _between(size)
        piece[...] = FILL
        return piece


def _between(size: int) -> np.ndarray:
    """Memory between two forbidden pages."""
    whole = np.frombuffer(mmap.mmap(-1, size + 2 * mmap.PAGESIZE), np.uint8)
    for page in (0, mmap.PAGESIZE + size):
        if _C.mprotect(whole.ctypes.data + page, mmap.PAGESIZE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    return whole[mmap.PAGESIZE : mmap.PAGESIZE + size]
