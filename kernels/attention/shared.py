"""Sizes of the blocks that attention is computed in, and where what of a head lies."""

from __future__ import annotations

from ..cpu.tile import panel_width
from ..declare import helper

#: queries of a block
QUERIES = 64
#: keys of a block, a multiple of every panel's width and of the random numbers' groups: the scores
#: of a block of queries with them lie in L2. In float64 half as many.
KEYS = 384
#: what a row of scores is longer than a block: rows a power of two apart would evict each other
MARGIN = 16


def forward_scratch(keys: int, size: int, itemsize: int) -> int:
    """Elements of scratch memory of the forward pass, for `keys` keys of `size` numbers: the keys
    in panels, a block of scores, and of each of its rows the maximum and the sum."""
    return _packed(keys, size, itemsize) + _scores(itemsize) + 2 * QUERIES


def backward_scratch(keys: int, size: int, value_size: int, itemsize: int) -> int:
    """The same of the backward pass: keys and values, two blocks, a number for each row."""
    packed = _packed(keys, size, itemsize) + _packed(keys, value_size, itemsize)
    return packed + 2 * _scores(itemsize) + QUERIES


def _packed(keys: int, size: int, itemsize: int) -> int:
    width = panel_width(itemsize)
    return -(-keys // width) * width * size


def _scores(itemsize: int) -> int:
    return QUERIES * (KEYS * 4 // itemsize + MARGIN)


@helper
def head_place(apart: int, head: int, length: int, columns: int, size: int) -> tuple[int, int]:
    """Where a head begins within a sample, and how far its rows are apart: heads of `size` numbers
    lie side by side in the `columns` of a row, or one after the other, `apart`, in `length` rows
    each."""
    if apart:
        return head * length * columns, columns
    return head * size, columns


@helper
def visible(causal: int, query: int, first: int, keys: int) -> int:
    """How many of the keys a query looks at; `first` is the place of query 0 among the keys."""
    if causal:
        return max(0, min(keys, query + first + 1))
    return keys
