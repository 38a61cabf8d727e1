"""Rows of a table picked by ids. N ids, V rows of the table, C columns."""

from ..cpu.parts import fill_row, load_part, store_part
from ..declare import kernel
from ..simd import lanes


@kernel
def embedding_forward(
    ids: "in rows i[N]",
    table: "in whole f[V,C]",
    y: "out rows f[N,C]",
    lo: "begin",
    hi: "end",
):
    """y[n] = table[ids[n]]; a row of NaN for an id outside 0..V-1."""
    V, C = table.shape
    for i in range(lo, hi):
        row = ids[i]
        if row < 0 or row >= V:
            fill_row(y, i * C, C, float("nan"))
            continue
        for j in range(0, C, lanes(y)):
            store_part(y, i * C + j, load_part(table, row * C + j, C - j), C - j)


@kernel(sums_rows=True, factors=("dy",))
def embedding_backward(
    ids: "in whole i[N]",
    dy: "in whole f[N,C]",
    dtable: "out rows f[V,C]",
    padding_index: "int",  # this row's gradient stays 0; negative: none
    lo: "begin",
    hi: "end",
):
    """dtable[v] = sum of dy[n] over the n with ids[n] = v, in the order of n."""
    N, C = dy.shape
    fill_row(dtable, lo * C, (hi - lo) * C, 0.0)
    for i in range(N):
        row = ids[i]
        if row < lo or row >= hi or row == padding_index:
            continue
        for j in range(0, C, lanes(dy)):
            k = row * C + j
            v = load_part(dtable, k, C - j) + load_part(dy, i * C + j, C - j)
            store_part(dtable, k, v, C - j)
