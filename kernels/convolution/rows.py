"""Rows of memory: copied, cleared, added; those of a vector or more without masked stores."""

from __future__ import annotations

from ..declare import helper
from ..simd import lanes, load, load_first, splat, store, store_first


@helper
def copy_row(source, i, target, k, size):
    """target[k:k+size] = source[i:i+size] (flat). The last vector ends at the last element and
    overlaps the one before it: masked stores take some CPUs (Zen 3) as long as a dozen others."""
    n = lanes(source)
    if size < n:
        store_first(target, k, load_first(source, i, size), size)
        return
    for j in range(0, size - n, n):
        store(target, k + j, load(source, i + j))
    store(target, k + size - n, load(source, i + size - n))


@helper
def zero_row(target, k, size):
    """target[k:k+size] = 0, in the same way."""
    zero, n = splat(target, 0.0), lanes(target)
    if size < n:
        store_first(target, k, zero, size)
        return
    for j in range(0, size - n, n):
        store(target, k + j, zero)
    store(target, k + size - n, zero)


@helper
def add_row(source, i, target, k, size):
    """target[k:k+size] += source[i:i+size] (flat), in the same way; the last vector's sums are
    those of what was there before."""
    n = lanes(source)
    if size < n:
        v = load_first(target, k, size) + load_first(source, i, size)
        store_first(target, k, v, size)
        return
    last = load(target, k + size - n) + load(source, i + size - n)
    for j in range(0, size - n, n):
        store(target, k + j, load(target, k + j) + load(source, i + j))
    store(target, k + size - n, last)
