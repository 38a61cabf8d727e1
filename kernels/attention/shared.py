"""Where what of a head lies, and what a query looks at."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..declare import helper


class Heads(NamedTuple):
    """Queries, keys and values of all heads.

    Attributes:
        q, k, v: the arrays, [B,M,X], [B,N,X] and [B,N,Y].
        k_from, v_from: the columns in which keys and values begin, where all are one array.
        size, value_size: numbers of a query or a key, and of a value.
        count: how many heads there are.
        apart: whether they lie one after the other, not side by side.
    """

    q: Any
    k: Any
    v: Any
    k_from: int
    v_from: int
    size: int
    value_size: int
    count: int
    apart: int


class Lengths(NamedTuple):
    """How many keys and queries each sequence has; an array without elements: all."""

    keys: Any
    queries: Any


class Sight(NamedTuple):
    """Which keys a query looks at.

    Attributes:
        causal: whether those up to its own place, or all.
        first: the place of query 0 among the keys.
        keys: how many there are.
    """

    causal: int
    first: int
    keys: int


class Drop(NamedTuple):
    """Dropout of weights: the control block (nothing in it without dropout), the number of the
    stream of random numbers, and the share that is kept."""

    control: Any
    stream: int
    keep: Any


class Rows(NamedTuple):
    """Rows in an array taken as flat: where the first begins, and from row to row how far."""

    x: Any
    at: int
    step: int


@helper
def heads_of(q: Any, k: Any, v: Any, count: int, apart: int) -> Heads:
    """Heads in arrays of their own."""
    size = q.shape[2] if apart else q.shape[2] // count
    value_size = v.shape[2] if apart else v.shape[2] // count
    return Heads(q, k, v, 0, 0, size, value_size, count, apart)


@helper
def heads_within(x: Any, width: int, count: int) -> Heads:
    """Heads in one array, whose rows are query, key and value, each of `width` numbers."""
    size = width // count
    return Heads(x, x, x, width, 2 * width, size, size, count, 0)


@helper
def keys_of(heads: Heads) -> int:
    """How many keys a head has."""
    return heads.k.shape[1] // heads.count if heads.apart else heads.k.shape[1]


@helper
def length_of(lengths: Any, b: int, most: int) -> int:
    """The length of sequence b."""
    return min(most, int(lengths[b])) if lengths.size > 0 else most


@helper
def rows_of(x: Any, heads: Heads, b: int, head: int, length: int, size: int, begin: int) -> Rows:
    """The rows of a head: heads of `size` numbers lie side by side in the columns of a row, from
    column `begin` on, or one after the other, `apart`, in `length` rows each."""
    columns = x.shape[2]
    at = head * length * columns if heads.apart else head * size
    return Rows(x, at + begin + b * x.shape[1] * columns, columns)


@helper
def query_rows(x: Any, heads: Heads, b: int, head: int, queries: int) -> Rows:
    """The queries of a head, in q or in dq."""
    return rows_of(x, heads, b, head, queries, heads.size, 0)


@helper
def key_rows(x: Any, heads: Heads, b: int, head: int) -> Rows:
    """The keys of a head, in k or in dk."""
    return rows_of(x, heads, b, head, keys_of(heads), heads.size, heads.k_from)


@helper
def value_rows(x: Any, heads: Heads, b: int, head: int) -> Rows:
    """The values of a head, in v or in dv."""
    return rows_of(x, heads, b, head, keys_of(heads), heads.value_size, heads.v_from)


@helper
def output_rows(x: Any, heads: Heads, b: int, head: int, queries: int) -> Rows:
    """The outputs of a head, in y or in dy."""
    return rows_of(x, heads, b, head, queries, heads.value_size, 0)


@helper
def from_row(rows: Rows, i: int) -> Rows:
    """The rows from row i on."""
    return Rows(rows.x, rows.at + i * rows.step, rows.step)


@helper
def visible(sight: Sight, query: int) -> int:
    """How many of the keys a query looks at."""
    if sight.causal:
        return max(0, min(sight.keys, query + sight.first + 1))
    return sight.keys
