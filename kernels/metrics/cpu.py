"""Counts of what a model got right, row by row. N rows, C classes or columns.

A target outside 0..C-1 (an ignored one, say) is no hit.
"""

from ..cpu.parts import row_max
from ..declare import kernel


@kernel
def accuracy(
    x: "in rows f[N,C]",
    target: "in rows i[N]",
    hit: "out rows f[N]",
    lo: "begin",
    hi: "end",
):
    """1 where the first of the largest elements of the row is the target, else 0."""
    C = x.shape[1]
    for i in range(lo, hi):
        t = target[i]
        found = 0.0
        if t >= 0 and t < C:
            top = row_max(x, i * C, C)
            if x[i, t] == top:
                found = 1.0
                for j in range(t):
                    if x[i, j] == top:
                        found = 0.0
        hit[i] = found


@kernel
def largest(x: "in rows f[N,C]", y: "out rows i[N]", lo: "begin", hi: "end"):
    """The index of the first of the largest elements of the row; -1 where one is NaN."""
    C = x.shape[1]
    for i in range(lo, hi):
        best = 0
        for j in range(C):
            if x[i, j] > x[i, best]:
                best = j
        for j in range(C):
            if x[i, j] != x[i, j]:
                best = -1
        y[i] = best


@kernel
def top_k(
    x: "in rows f[N,C]",
    target: "in rows i[N]",
    hit: "out rows f[N]",
    k: "int",
    lo: "begin",
    hi: "end",
):
    """1 where fewer than `k` elements come before the target's: larger ones, and equal ones with
    a smaller index; else 0, also where the target's element is NaN."""
    C = x.shape[1]
    for i in range(lo, hi):
        t = target[i]
        found = 0.0
        if t >= 0 and t < C:
            value = x[i, t]
            before = 0
            for j in range(C):
                if x[i, j] > value or (x[i, j] == value and j < t):
                    before += 1
            if before < k and value == value:
                found = 1.0
        hit[i] = found


@kernel
def binary_accuracy(
    x: "in rows f[N,C]",
    target: "in rows f[N,C]",  # 0 or 1
    hit: "out rows f[N]",
    threshold: "real",
    lo: "begin",
    hi: "end",
):
    """The share of the row's columns where (x > threshold) agrees with (target > 0.5)."""
    C = x.shape[1]
    for i in range(lo, hi):
        count = 0
        for j in range(C):
            if (x[i, j] > threshold) == (target[i, j] > 0.5):
                count += 1
        hit[i] = count / C
