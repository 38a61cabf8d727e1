"""Kernels that combine a matrix with one number a column ("row") or one a row ("column"), PReLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arithmetic import add, multiply
from ..declare import Kernel, helper, kernel
from ..simd import (
    Vector,
    fma,
    lanes,
    load,
    load_first,
    splat,
    store,
    store_first,
    sum_lanes,
    where,
)


@kernel
def full(y: "out rows f[N,C]", number: "real", lo: "begin", hi: "end"):
    """y[n,c] = number."""
    n, begin, end = lanes(y), lo * y.shape[1], hi * y.shape[1]
    value = splat(y, number)
    for i in range(begin, end - n + 1, n):
        store(y, i, value)
    rest = (end - begin) % n
    if rest:
        store_first(y, end - rest, value, rest)


def with_row(name: str, formula: Callable[..., Any]) -> Kernel:
    """The kernel y[n,c] = formula(a[n,c], b[c]); y may be a."""

    def run(a: "in rows f[N,C]", b: "in whole f[C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
        """y[n,c] = formula(a[n,c], b[c]); y may be a."""
        n, width = lanes(a), a.shape[1]
        for row in range(lo, hi):
            base, j = row * width, 0
            while j + n <= width:
                store(y, base + j, formula(load(a, base + j), load(b, j)))
                j += n
            if j < width:
                m = width - j
                value = formula(load_first(a, base + j, m), load_first(b, j, m))
                store_first(y, base + j, value, m)

    made: Kernel = kernel(run, name=name)
    return made


def with_column(name: str, formula: Callable[..., Any]) -> Kernel:
    """The kernel y[n,c] = formula(a[n,c], b[n]); y may be a."""

    def run(a: "in rows f[N,C]", b: "in rows f[N]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
        """y[n,c] = formula(a[n,c], b[n]); y may be a."""
        n, width = lanes(a), a.shape[1]
        for row in range(lo, hi):
            base, j, factor = row * width, 0, splat(a, b[row])
            while j + n <= width:
                store(y, base + j, formula(load(a, base + j), factor))
                j += n
            if j < width:
                m = width - j
                store_first(y, base + j, formula(load_first(a, base + j, m), factor), m)

    made: Kernel = kernel(run, name=name)
    return made


add_row = with_row("add_row", add)
multiply_row = with_row("multiply_row", multiply)
add_column = with_column("add_column", add)
multiply_column = with_column("multiply_column", multiply)


@helper
def _slopes(weight: Any, j: int) -> Vector:
    """PReLU's slopes of the columns from j on: one each, or the same for all."""
    return load(weight, j) if weight.shape[0] > 1 else splat(weight, weight[0])


@helper
def _slopes_first(weight: Any, j: int, m: int) -> Vector:
    """The same for the last m columns, fewer than a vector."""
    return load_first(weight, j, m) if weight.shape[0] > 1 else splat(weight, weight[0])


@kernel
def prelu_forward(
    x: "in rows f[N,C]", weight: "in whole f[W]", y: "out rows f[N,C]", lo: "begin", hi: "end"
):
    """y = x where x > 0, else weight*x (He et al. 2015); W is 1 or C. y may be x."""
    n, width = lanes(x), x.shape[1]
    for row in range(lo, hi):
        base, j = row * width, 0
        while j + n <= width:
            v = load(x, base + j)
            store(y, base + j, where(v > 0.0, v, v * _slopes(weight, j)))
            j += n
        if j < width:
            m = width - j
            v = load_first(x, base + j, m)
            store_first(y, base + j, where(v > 0.0, v, v * _slopes_first(weight, j, m)), m)


@kernel
def prelu_backward_input(
    x: "in rows f[N,C]",
    weight: "in whole f[W]",
    dy: "in rows f[N,C]",
    dx: "out rows f[N,C]",
    lo: "begin",
    hi: "end",
):
    """dx = dy where x > 0, else weight*dy. dx may be x or dy."""
    n, width = lanes(x), x.shape[1]
    for row in range(lo, hi):
        base, j = row * width, 0
        while j + n <= width:
            g = load(dy, base + j)
            store(dx, base + j, where(load(x, base + j) > 0.0, g, g * _slopes(weight, j)))
            j += n
        if j < width:
            m = width - j
            g = load_first(dy, base + j, m)
            value = where(load_first(x, base + j, m) > 0.0, g, g * _slopes_first(weight, j, m))
            store_first(dx, base + j, value, m)


@helper
def _add_slope_gradient(total: Vector, x: Vector, dy: Vector) -> Vector:
    """total + (0 where x > 0, else x*dy)."""
    return fma(where(x > 0.0, 0.0, x), dy, total)


@kernel(grain=16, sums_rows=True)
def prelu_backward_weight_columns(
    x: "in cols f[N,C]",
    dy: "in cols f[N,C]",
    dweight: "out rows f[C]",
    lo: "begin",
    hi: "end",
):
    """dweight[c] = sum over n of x[n,c]*dy[n,c] where x <= 0; n in order."""
    n, width = lanes(x), x.shape[1]
    for j in range(lo, hi, n):
        m = min(n, hi - j)
        total = splat(x, 0.0)
        if m == n:
            for i in range(j, x.size, width):
                total = _add_slope_gradient(total, load(x, i), load(dy, i))
        else:
            for i in range(j, x.size, width):
                total = _add_slope_gradient(total, load_first(x, i, m), load_first(dy, i, m))
        store_first(dweight, j, total, m)


@kernel(sums_rows=True)
def prelu_backward_weight_single(
    x: "in whole f[N,C]", dy: "in whole f[N,C]", dweight: "out whole f[W]"
):
    """dweight[0] = sum of x*dy where x <= 0, on one worker; W is 1."""
    n, size = lanes(x), x.size
    total = splat(x, 0.0)
    i = 0
    while i + n <= size:
        total = _add_slope_gradient(total, load(x, i), load(dy, i))
        i += n
    if i < size:
        m = size - i
        total = _add_slope_gradient(total, load_first(x, i, m), load_first(dy, i, m))
    dweight[0] = sum_lanes(total)
