"""Samples from the user's data to the mini-batch and results back.

S samples, M entries of the data order, L words of the control block, N rows of the mini-batch, C
numbers a sample. The user's data (`d`) may be of any float, integer or boolean type.
"""

from ..control_block import CURSOR, OUT_OF_RANGE, STOP
from ..declare import kernel


@kernel
def gather_rows(
    source: "in whole d[S,C]",
    order: "in whole i[M]",
    control: "in whole i[L]",
    y: "out rows f[N,C]",
    lo: "begin",
    hi: "end",
):
    """y[n] = source[order[cursor + n]], converted to the program's float type."""
    C = source.shape[1]
    for i in range(lo, hi):
        row = order[control[CURSOR] + i]
        for j in range(C):
            y[i, j] = source[row, j]


@kernel(few_as="gather_ids_few")
def gather_ids(
    source: "in whole d[S,C]",
    order: "in whole i[M]",
    control: "in whole i[L]",
    y: "out rows i[N,C]",
    lo: "begin",
    hi: "end",
):
    """y[n] = source[order[cursor + n]], converted to int64."""
    C = source.shape[1]
    for i in range(lo, hi):
        row = order[control[CURSOR] + i]
        for j in range(C):
            y[i, j] = source[row, j]


@kernel
def scatter_rows(
    x: "in rows f[N,C]",
    control: "in whole i[L]",
    y: "part whole f[S,C]",  # only rows cursor..cursor+N-1 are written
    lo: "begin",
    hi: "end",
):
    """y[cursor + n] = x[n]."""
    C = x.shape[1]
    first = control[CURSOR]
    for i in range(lo, hi):
        for j in range(C):
            y[first + i, j] = x[i, j]


@kernel
def scatter_ids(
    x: "in rows i[N,C]",
    control: "in whole i[L]",
    y: "part whole i[S,C]",  # only rows cursor..cursor+N-1 are written
    lo: "begin",
    hi: "end",
):
    """y[cursor + n] = x[n] for integers."""
    C = x.shape[1]
    first = control[CURSOR]
    for i in range(lo, hi):
        for j in range(C):
            y[first + i, j] = x[i, j]


@kernel(checks=True)
def check_range(
    ids: "in whole i[N]",
    control: "inout whole i[L]",
    low: "int",
    high: "int",
    ignored: "int",  # this number is allowed, too
):
    """Ask all workers to leave unless every id is in low..high-1."""
    wrong = 0
    for i in range(ids.shape[0]):
        v = ids[i]
        wrong |= ((v < low) | (v >= high)) & (v != ignored)
    if wrong:
        control[STOP] = OUT_OF_RANGE
