"""Orders of samples, drawn by compiled code."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from fastnn.cached import cached
from fastnn.runtime.cpu import compiler, layout
from fastnn.runtime.orders import Orders

#: more samples need random numbers of 64 bits
MOST = 1 << 32


class CpuOrders(Orders):
    """The same orders in a fraction of the time (`permuting`)."""

    def __init__(self, samples: int):
        super().__init__(samples)
        blocks = 4 * layout.ORDER_BLOCKS
        self._scratch = np.empty(3 * blocks, np.int64)
        free = self._scratch.ctypes.data
        self._record = np.array([self.order.ctypes.data, samples, free, free + 8 * blocks])
        self._address = ctypes.c_int64(self._record.ctypes.data)

    @cached
    def _permute(self) -> Any:
        """Compiled along with the programs if it is not there; they are bound before orders are
        drawn."""
        return compiler.CALL(compiler.loop_address("permute"))

    def _fill(self, seed: int, epoch: int) -> None:
        if self.samples > MOST:
            super()._fill(seed, epoch)
        else:
            self._permute(self._address, seed, epoch)
