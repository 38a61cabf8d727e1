"""Sums of vectors and inner products over flat memory, by one block: the twins of `vectors.py`.

Thread t of n has elements t, t + n, t + 2 n, ... in all of them, so none waits for another but in
the sums. State and control block are every thread's own copies while a kernel runs (`cuda.py`): all
threads compute the same numbers from the same sums, and take the same turns.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..cuda.device import (
    WARP,
    block_max,
    block_sum,
    block_threads,
    cast,
    cuda,
    power_of_2,
    thread_number,
)
from ..declare import HELPERS, ceil_div, helper
from ..simd import fma

#: products that a thread adds up in the vectors' own type before the sum goes into a float64
RUN = 16
#: threads of the block, at most: with more the kernels lack registers
THREADS = 512


def launch(sizes: dict[str, int]) -> tuple[int, int]:
    """One block, with a thread for every four elements, up to `THREADS`."""
    return 1, power_of_2(ceil_div(sizes["P"], 4), WARP, THREADS)


class Replaced:
    """The CPU's functions as CUDA has them: with others in the place of those that they call, or
    that what they call calls, by these names.

    A function in which nothing is replaced stays as it is.
    """

    def __init__(self, others: Mapping[str, Callable[..., Any]]):
        self.others = others
        self.made: dict[Callable[..., Any], Any] = {}

    def __call__(self, function: Any) -> Any:
        if function not in self.made:
            self.made[function] = self._make(function)
        return self.made[function]

    def _make(self, function: Any) -> Any:
        scope = {name: function.__globals__.get(name) for name in function.__code__.co_names}
        helpers = {name: f for name, f in scope.items() if any(f is h for h in HELPERS)}
        new = {name: self.others.get(name) or self(f) for name, f in helpers.items()}
        if new == helpers:
            return function
        made = types.FunctionType(
            function.__code__, {**function.__globals__, **new}, function.__name__,
            function.__defaults__,
        )  # fmt: skip
        made.__module__ = __name__
        return helper(made)


@helper
def dot(x, y):
    """The sum of x y: a thread's runs of RUN products, added up in float64, then all threads'."""
    total, n, threads = np.float64(0.0), x.shape[0], block_threads()
    for j in range(thread_number(), n, RUN * threads):
        a = cast(x, 0.0)
        for i in range(j, min(j + RUN * threads, n), threads):
            a = fma(x[i], y[i], a)
        total += np.float64(a)
    return block_sum(total)


@helper
def largest(x):
    """max |x|; NaN where there is one."""
    found, wrong = np.float64(0.0), np.float64(0.0)
    for i in range(thread_number(), x.shape[0], block_threads()):
        size = abs(np.float64(x[i]))
        if size != size:
            wrong = np.float64(1.0)
        elif size > found:
            found = size
    found, wrong = block_max(found), block_max(wrong)
    return np.float64(np.nan) if wrong != 0.0 else found


@helper
def differs(x, y):
    """Whether any element of x is another than that of y."""
    found = np.float64(0.0)
    for i in range(thread_number(), x.shape[0], block_threads()):
        if x[i] != y[i]:
            found = np.float64(1.0)
    return block_max(found) > 0.0


@helper
def combine(a, x, b, y, z):
    """z = a x + b y."""
    first, second = cast(x, a), cast(x, b)
    for i in range(thread_number(), x.shape[0], block_threads()):
        z[i] = fma(second, y[i], first * x[i])


@helper
def copy(x, y):
    """y = x."""
    for i in range(thread_number(), x.shape[0], block_threads()):
        y[i] = x[i]


@helper
def clear(x):
    """x = 0."""
    for i in range(thread_number(), x.shape[0], block_threads()):
        x[i] = cast(x, 0.0)


@helper
def copy_row(x, matrix, k):
    """Row k of the matrix = x."""
    for i in range(thread_number(), x.shape[0], block_threads()):
        matrix[k, i] = x[i]


@helper
def take_row(matrix, k, x):
    """x = row k of the matrix."""
    for i in range(thread_number(), x.shape[0], block_threads()):
        x[i] = matrix[k, i]


@helper
def pair_products(p, g, origin, before, s, y, k, pairs, m, state, at):
    """The newest pair, and products of all pairs with it and with g: see `vectors.py`."""
    combine(1.0, p, -1.0, origin, s[k])
    combine(1.0, g, -1.0, before, y[k])
    squares, products = at + m * m, at + 2 * m * m
    for age in range(pairs):
        i = (k - age) % m
        state[at + i * m + k] = dot(s[i], y[k])
        state[squares + i * m + k] = dot(y[i], y[k])
        state[products + i] = dot(s[i], g)
        state[products + m + i] = dot(y[i], g)


@helper
def blend(scale, x, s, y, k, pairs, m, state, of_s, of_y, z):
    """z = scale x + the pairs' vectors times numbers of the state, and x z."""
    combine(scale, x, 0.0, x, z)
    for age in range(pairs):
        i = (k - age) % m
        combine(state[of_s + i], s[i], 1.0, z, z)
        combine(state[of_y + i], y[i], 1.0, z, z)
    return dot(x, z)


@helper
def take_copy(x, own):
    """A thread's own copy; nobody has changed x before all have one."""
    for i in range(x.shape[0]):
        own[i] = x[i]
    cuda.syncthreads()


@helper
def give_copy(own, x):
    """The copy of one thread takes the place of x."""
    cuda.syncthreads()
    if thread_number() == 0:
        for i in range(x.shape[0]):
            x[i] = own[i]


#: what takes the place of the functions of `vectors.py`
VECTORS = {
    f.__name__: f
    for f in (
        dot, largest, differs, combine, copy, clear, copy_row, take_row, pair_products, blend,
    )
}  # fmt: skip
