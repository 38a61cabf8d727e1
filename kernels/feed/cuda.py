"""Samples from the user's data to the mini-batch and results back.

S samples, M entries of the data order, L words of the control block, N rows of the mini-batch, C
numbers a sample. The user's data (`d`) may be of any float, integer or boolean type.
"""

import numpy as np

from ..control_block import CURSOR, OUT_OF_RANGE, STOP
from ..cuda.device import (
    WARP,
    block_threads,
    cuda,
    divide_index,
    flat,
    flat_index,
    fours_launch,
    power_of_2,
    thread_number,
)
from ..cuda.half import LETTERS, half_word, of_letter
from ..declare import cuda_kernel
from . import cpu


@cuda_kernel(like=cpu.gather_rows, launch=lambda s: fours_launch(4 * s["N"] * s["C"]))
def gather_rows(source, order, control, y):
    i, C = flat_index(), source.shape[1]
    if i < y.size:
        n = divide_index(i, C)
        y[n, i - n * C] = source[order[control[CURSOR] + n], i - n * C]


def _declare_half(kind: str, letter: str) -> None:
    is_bf16 = int(kind == "bf16")

    @cuda_kernel(
        launch=lambda s: fours_launch(4 * s["N"] * s["C"]), name=f"gather_rows_{kind}",
        only_float32=True,
    )  # fmt: skip
    @of_letter(letter)
    def gather_rows_half(
        source: "in whole d[S,C]",
        order: "in whole i[M]",
        control: "in whole i[L]",
        y: "out whole f[N,C]",  # may be absent
        y_half: "out whole h[N,C]",
    ):
        """`gather_rows`, in 16 bits as well."""
        i, C = flat_index(), source.shape[1]
        if i < y_half.size:
            n = divide_index(i, C)
            value = np.float32(source[order[control[CURSOR] + n], i - n * C])
            if y.size > 0:
                y[n, i - n * C] = value
            flat(y_half)[i] = half_word(value, is_bf16)


for _kind, _letter in LETTERS.items():
    _declare_half(_kind, _letter)


@cuda_kernel(like=cpu.gather_ids, launch=lambda s: fours_launch(4 * s["N"] * s["C"]))
def gather_ids(source, order, control, y):
    i, C = flat_index(), source.shape[1]
    if i < y.size:
        n = divide_index(i, C)
        y[n, i - n * C] = source[order[control[CURSOR] + n], i - n * C]


@cuda_kernel(
    like=cpu.gather_ids, name="gather_ids_few", one_block=True,
    launch=lambda s: (1, power_of_2(s["N"] * s["C"], WARP, 512)),
)  # fmt: skip
def gather_ids_few(source, order, control, y):
    """`gather_ids` of few numbers by one block, which has more to do."""
    C = source.shape[1]
    for i in range(thread_number(), y.size, block_threads()):
        n = divide_index(i, C)
        y[n, i - n * C] = source[order[control[CURSOR] + n], i - n * C]


@cuda_kernel(like=cpu.scatter_rows, launch=lambda s: fours_launch(4 * s["N"] * s["C"]))
def scatter_rows(x, control, y):
    i, C = flat_index(), x.shape[1]
    if i < x.size:
        n = divide_index(i, C)
        y[control[CURSOR] + n, i - n * C] = x[n, i - n * C]


@cuda_kernel(like=cpu.scatter_ids, launch=lambda s: fours_launch(4 * s["N"] * s["C"]))
def scatter_ids(x, control, y):
    i, C = flat_index(), x.shape[1]
    if i < x.size:
        n = divide_index(i, C)
        y[control[CURSOR] + n, i - n * C] = x[n, i - n * C]


@cuda_kernel(like=cpu.check_range, launch=lambda s: (1, 256 if s["N"] > 32 else 32), one_block=True)
def check_range(ids, control, low, high, ignored):
    """Ask for the end of the run unless every id is in low..high-1."""
    wrong = 0
    for i in range(thread_number(), ids.shape[0], block_threads()):
        v = ids[i]
        if (v < low or v >= high) and v != ignored:
            wrong = 1
    if cuda.syncthreads_or(wrong) != 0 and thread_number() == 0:
        control[STOP] = OUT_OF_RANGE
