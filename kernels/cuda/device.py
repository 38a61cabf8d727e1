"""What kernels for CUDA share: the name `cuda`, sums over a block, flat views, vector loads.

Kernels take the name `cuda` from here. It stands for `numba.cuda` without importing it: the runtime
puts the module in its place when it compiles a kernel, and in the simulator, where kernels run as
plain Python, attributes are looked up when they are used.

Rules for kernels:

- Every function that a kernel calls is a `@helper`, or one of this file's, or of `simd`'s that
  work on values (`fma`, `where`, `pick`, ...; a vector is one number here).
- Float constants take the program's type, as Python's floats do with NumPy's: in a float32 program
  ``0.5 * x`` and ``total = 0.0`` are float32. For float64 say ``np.float64(0.0)``. An integer times
  a float32 is float64: convert it (`cast`). Infinity is a constant of a module (`INFINITY`):
  ``float("inf")`` inside of a kernel is float64.
- No negative indices. Blocks have a multiple of 32 threads.
- Shared arrays: ``cuda.shared.array(32, x.dtype)``; one a line. They are not cleared.

The bodies below are the plain-Python twins for the simulator; `_device_nvvm` has the
compiled ones, with warp shuffles, which add in the same order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import recorded
from ..declare import ceil_div

recorded.record()

INFINITY = float("inf")
WARP = 32  # threads of a warp
MOST = 1024  # threads of a block, at most

#: the module that the name `cuda` stands for (the simulator's of this launch), and the simulator's
#: thread that has its turn
_module: list[Any] = []
_turn: list[Any] = []


@recorded.plain
def provide(module: Any) -> None:
    """Let the name `cuda` stand for this module (the simulator's of a launch)."""
    _module[:] = [module]
    vars(cuda).update(
        blockDim=module.blockDim, gridDim=module.gridDim, syncthreads=module.syncthreads
    )


@recorded.plain
def take_turn(thread: Any) -> None:
    """It is this thread of the simulator's whose code runs from now on."""
    _turn[:] = [thread]
    cuda.threadIdx, cuda.blockIdx = thread.index, thread.block.index


@recorded.plain
def running() -> Any:
    """The simulator's thread that has its turn."""
    return _turn[0]


@recorded.plain
class _SharedArrays:
    """`cuda.shared` for the simulator: an array a block and source line, poisoned with 0xff."""

    def __init__(self) -> None:
        self._arrays: dict[Any, np.ndarray] = {}
        self._launch: Any = None
        #: how often blocks have met, by cluster (see `near.py`)
        self.met: dict[int, int] = {}

    def array(self, shape: Any, dtype: Any) -> np.ndarray:
        if self._launch is not _module[0]:
            self._launch = _module[0]
            self._arrays.clear()
            self.met.clear()
        if not isinstance(dtype, (type, np.dtype)):
            dtype = str(dtype)  # a type of Numba's
        dtype, block = np.dtype(dtype), tuple(cuda.blockIdx)
        if shape == 0:  # the memory whose size the launch gives: the same for all calls
            size = self._launch.shared._dynshared_size
            place: Any = (block, "dynamic")
            shape = size // dtype.itemsize
        else:
            frame = sys._getframe(1)
            place = (block, frame.f_code, frame.f_lineno, shape, dtype)
            size = None
        found = self._arrays.get(place)
        if found is None:
            size = int(np.prod(shape)) * dtype.itemsize if size is None else size
            found = self._arrays[place] = np.full(size, 0xFF, np.uint8)
        return found.view(dtype).reshape(shape)

    def of(self, block: tuple[int, int, int]) -> np.ndarray:
        """The dynamic shared memory of a block that has begun and not ended."""
        if (block, "dynamic") not in self._arrays:
            raise RuntimeError(f"block {block} has no shared memory: not yet, or no longer")
        return self._arrays[block, "dynamic"]

    def close(self, block: tuple[int, int, int]) -> None:
        """A block has ended: nobody can reach its memory any more."""
        self._arrays.pop((block, "dynamic"), None)


@recorded.plain
class _Cuda:
    """Stands for the module `numba.cuda`."""

    shared = _SharedArrays()
    threadIdx: Any
    blockIdx: Any

    def __repr__(self) -> str:  # the same in every process: it goes into the hash of a kernel
        return "cuda"

    def __getattr__(self, name: str) -> Any:
        if not _module:
            raise RuntimeError(
                "kernels for CUDA are compiled by fastnn.runtime.cuda, or run in the simulator by "
                "fastnn.testing.kernels.call_cuda; they cannot be called directly"
            )
        return getattr(_module[0], name)


cuda = _Cuda()


# ---------------------------------------------------------------- launches


def power_of_2(n: int, least: int, most: int) -> int:
    """The smallest power of 2 that is at least `n`, within `least` and `most` (powers of 2)."""
    result = least
    while result < min(n, most):
        result *= 2
    return result


def fours_launch(count: int) -> tuple[int, int]:
    """A thread for every four of `count` elements."""
    return ceil_div(count, 1024), 256


def row_launch(rows: int, width: int) -> tuple[int, int]:
    """A block for every row; its threads share the `width` columns."""
    return rows, power_of_2(ceil_div(width, 4), WARP, 256)


ONE_THREAD = (1, WARP)  # for kernels of which only thread 0 does anything


# ---------------------------------------------------------------- places


@recorded.plain
def thread_number() -> int:
    """The number of this thread in its block, whatever the block's shape."""
    t, b = cuda.threadIdx, cuda.blockDim
    return t.x + b.x * (t.y + b.y * t.z)


@recorded.plain
def block_threads() -> int:
    """The number of threads of a block."""
    return cuda.blockDim.x * cuda.blockDim.y * cuda.blockDim.z


@recorded.plain
def flat_index() -> int:
    """The number of this thread in a grid of one dimension."""
    return cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x


@recorded.plain
def block_number() -> int:
    """The number of this block in a grid of one dimension."""
    return cuda.blockIdx.x


@recorded.plain
def shared_of(block: int) -> np.ndarray:
    """The dynamic shared memory of a block in a grid of one dimension, as bytes (simulator)."""
    return cuda.shared.of((block, 0, 0))


@recorded.plain
def give_way() -> None:
    """Stands in every loop that waits for other threads: it lets them run in the simulator."""
    running().wait()


@recorded.plain
def flat(x: Any) -> Any:
    """The array as one row, without copying."""
    return x.reshape(-1)


@recorded.plain
def cast(x: Any, value: Any) -> Any:
    """A number as the element type of the array (or number) `x`."""
    return x.dtype.type(value)


@recorded.plain
def word(value: int) -> Any:
    """The lower 32 bits of an integer, for the random words of `random.shared.philox`."""
    return np.uint32(int(value) & 0xFFFFFFFF)


@recorded.plain
def divide_index(i: int, n: int) -> int:
    """i // n for an index i >= 0 and n > 0."""
    return i // n


# ---------------------------------------------------------------- four elements at once


@recorded.plain
def can_load4(x: Any) -> bool:
    """Whether `x` begins at a multiple of 16 bytes, as `load4` and `store4` need it."""
    return True


@recorded.plain
def load4(x: Any, i: int) -> tuple[Any, Any, Any, Any]:
    """Elements i to i+3 (flat index, a multiple of 4), by 128-bit loads."""
    y = x.reshape(-1)
    return y[i], y[i + 1], y[i + 2], y[i + 3]


@recorded.plain
def store4(x: Any, i: int, a: Any, b: Any, c: Any, d: Any) -> None:
    """Write elements i to i+3 (flat index, a multiple of 4), by 128-bit stores."""
    y = x.reshape(-1)
    y[i], y[i + 1], y[i + 2], y[i + 3] = a, b, c, d


# ---------------------------------------------------------------- sums over threads


@recorded.plain
def _exchange(value: Any, result: Callable[[np.ndarray], Any]) -> Any:
    """What `result` makes of what every thread of the block gave, by thread number; all threads
    have to arrive. The first that goes on works it out for all."""
    given = running().given
    given[thread_number()] = value
    given.pop("result", None)
    cuda.syncthreads()
    if "result" not in given:
        values = [given[k] for k in range(block_threads())]
        # a thread that had nothing to add comes with Python's 0.0: the others say the type
        types = [v.dtype for v in values if isinstance(v, (np.generic, np.ndarray))]
        given["result"] = result(np.array(values, types[0] if types else None))
    found = given["result"]
    cuda.syncthreads()
    return found


@recorded.plain
def _fold(values: np.ndarray, combine: Callable[..., Any]) -> np.ndarray:
    """The halves of the last axis combined, until one is left: the order of warp shuffles."""
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        values = combine(values[..., :half], values[..., half:])
    return values[..., 0]


@recorded.plain
def _larger(a: Any, b: Any) -> Any:
    return np.where(np.greater(a, b), a, b)


@recorded.plain
def _of_warps(value: Any, combine: Callable[..., Any]) -> Any:
    """What is folded of the values of each warp's threads."""
    return _exchange(value, lambda values: _fold(values.reshape(-1, WARP), combine))


@recorded.plain
def _of_block(value: Any, combine: Callable[..., Any], empty: float) -> Any:
    def fold(values: np.ndarray) -> Any:
        warps = _fold(values.reshape(-1, WARP), combine)
        padded = np.full(WARP, empty, warps.dtype)
        padded[: warps.size] = warps
        return _fold(padded, combine)

    return _exchange(value, fold)


@recorded.plain
def block_sum(value: Any) -> Any:
    """The sum of all threads' values, for every thread of the block.

    Order: in each warp the upper half is added to the lower, again and again, then the warps
    likewise. All threads of the block have to call it.
    """
    return _of_block(value, np.add, 0)


@recorded.plain
def block_max(value: Any) -> Any:
    """The largest of all threads' values (none may be NaN), for every thread of the block."""
    return _of_block(value, _larger, -np.inf)


@recorded.plain
def warp_sum(value: Any) -> Any:
    """The sum of the values of a warp's 32 threads, for each of them; order as in `block_sum`.

    All threads of the block have to call it the same number of times (the simulator needs that).
    """
    return _of_warps(value, np.add)[thread_number() // WARP]


@recorded.plain
def warp_max(value: Any) -> Any:
    """The largest of a warp's values (none may be NaN), for each of its threads; as `warp_sum`."""
    return _of_warps(value, _larger)[thread_number() // WARP]
