"""Means of squares by rows and by columns, which stand for those of a whole matrix (Adafactor)."""

import math

import numpy as np

from ..declare import kernel
from .shared import SHARED


@kernel
def update_factors(
    sums: "in whole r[R]",  # of squares of each row, divided by R * C
    cols: "in whole f[C]",  # of each column, likewise
    hyper: "in whole f[H]",  # beta, rest and epsilon come first of the rule's
    row: "inout whole f[R]",
    col: "inout whole f[C]",
    scaled: "out whole f[R]",
    roots: "out whole f[C]",
):
    """row = beta * row + rest * mean of squares of the row; col likewise; scaled = roots of row
    divided by the mean of row, or by epsilon where that is larger; roots = those of col."""
    if hyper[2] < 0:  # gradients are accumulated, and there are more to come
        return
    beta, rest = np.float64(hyper[SHARED]), np.float64(hyper[SHARED + 1])
    R, C = row.shape[0], col.shape[0]
    total = np.float64(0.0)
    for i in range(R):
        row[i] = beta * row[i] + rest * (sums[i] * R)
        total += np.float64(row[i])
    mean = max(total / R, np.float64(hyper[SHARED + 2]))
    for i in range(R):
        scaled[i] = math.sqrt(row[i] / mean)
    for j in range(C):
        col[j] = beta * col[j] + rest * (np.float64(cols[j]) * C)
        roots[j] = math.sqrt(np.float64(col[j]))
