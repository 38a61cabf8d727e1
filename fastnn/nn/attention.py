"""Multi-head attention."""

from __future__ import annotations

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_flags, check_numbers, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.linear import Linear
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.positions import Place, RotaryPositions
from fastnn.ops.operands import as_value
from fastnn.public import publish

#: keys and values as an attention reads them
Pair = tuple[Value, Value]


class MultiHeadAttention(Module):
    """Attention by several heads (Vaswani et al. 2017, "Attention is all you need").

    Queries, keys and values are projected, each head attends with a share of the columns
    (`ops.attention`), and what the heads have found is projected once more. Names, shapes, order
    and initial values of the parameters are those of PyTorch's `MultiheadAttention`; state dicts go
    both ways unchanged.

    Args:
        embed_dim: E, the size of queries and of the output.
        num_heads: H, which divides E.
        dropout: share of the weights that is left out while training, in [0, 1).
        bias: whether the projections have biases.
        kdim, vdim: sizes of keys and values; E by default.
        rotary: whether queries and keys are turned by their places (`RotaryPositions`), for self
            attention.

    Attributes:
        in_proj_weight: the projections of queries, keys and values, shape (3E, E), one below the
            other; with other sizes of keys or values there are `q_proj_weight` (E, E),
            `k_proj_weight` (E, kdim) and `v_proj_weight` (E, vdim) instead.
        in_proj_bias: shape (3E,), or None.
        out_proj: the last projection, a `Linear`.

    Shapes: query (batch, M, E); key (batch, N, kdim) and value (batch, N, vdim), by default the
    query, or for the value the key; `key_lengths` and `query_lengths` (batch,); output (batch, M,
    E).

    Raises OptionError for sizes below 1, a `num_heads` that does not divide `embed_dim`, and a
    `dropout` outside [0, 1); ShapeError for inputs of other sizes.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> x = np.ones((2, 5, 8), np.float32)
    >>> nn.MultiHeadAttention(8, 2).predict(x).shape
    (2, 5, 8)
    >>> nn.MultiHeadAttention(8, 2, kdim=6, vdim=6).predict(x, np.ones((2, 7, 6))).shape
    (2, 5, 8)
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
        kdim: int | None = None, vdim: int | None = None, rotary: bool = False,
    ):  # fmt: skip
        kdim, vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        check_whole(
            "MultiHeadAttention", 1, embed_dim=embed_dim, num_heads=num_heads, kdim=kdim, vdim=vdim
        )
        check_numbers("MultiHeadAttention", dropout=dropout)
        check_flags("MultiHeadAttention", bias=bias, rotary=rotary)
        if embed_dim % num_heads:
            raise OptionError(
                f"MultiHeadAttention: expected num_heads to divide embed_dim={embed_dim}, got "
                f"{num_heads}"
            )
        if not 0 <= dropout < 1:
            raise OptionError(f"MultiHeadAttention: expected dropout in [0, 1), got {dropout}")
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.kdim, self.vdim, self.dropout = kdim, vdim, float(dropout)
        self.joined = kdim == vdim == embed_dim
        if self.joined:
            self.in_proj_weight = _projection(3 * embed_dim, embed_dim)
        else:
            self.q_proj_weight = _projection(embed_dim, embed_dim)
            self.k_proj_weight = _projection(embed_dim, kdim)
            self.v_proj_weight = _projection(embed_dim, vdim)
        self.in_proj_bias = Parameter((3 * embed_dim,), 0.0) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, bias_init=0.0)
        self.positions = RotaryPositions(embed_dim // num_heads) if rotary else None

    def forward(
        self, query: Value, key: Value | None = None, value: Value | None = None,
        key_lengths: Value | None = None, query_lengths: Value | None = None, causal: bool = False,
    ) -> Value:  # fmt: skip
        if key is None and value is None and self.joined:
            self._check(query, "query", self.embed_dim)
            joined = ops.linear(query, self.in_proj_weight, self.in_proj_bias)
            if query_lengths is None:
                query_lengths = key_lengths
            if self.positions is None and query_lengths is key_lengths:
                found = ops.self_attention(
                    joined, heads=self.num_heads, causal=causal, lengths=key_lengths,
                    dropout=self.dropout,
                )  # fmt: skip
                return self.out_proj(found)
            q, k, v = ops.split(joined, 3)
            q, k = self._rotated(q), self._rotated(k)
        else:
            key = query if key is None else key
            q = self._rotated(self.project(query))
            k, v = self.keys_and_values(key, value)
        return self.attend(q, (k, v), key_lengths, query_lengths, causal)

    def project(self, query: Value) -> Value:
        """Queries as heads take them, shape (batch, M, E).

        Raises ShapeError for another size than `embed_dim`.
        """
        self._check(query, "query", self.embed_dim)
        return self._project(query, 0)

    def keys_and_values(self, key: Value, value: Value | None = None) -> Pair:
        """Keys and values as heads take them: for those that several calls look at.

        Raises ShapeError for other sizes than `kdim` and `vdim`.
        """
        value = key if value is None else value
        self._check(key, "key", self.kdim)
        self._check(value, "value", self.vdim)
        if value is key and self.joined:
            k, v = ops.split(self._project(key, 1, 2), 2)
        else:
            k, v = self._project(key, 1), self._project(value, 2)
        return self._rotated(k), v

    def attend(
        self, projected: Value, pair: Pair, key_lengths: Value | None = None,
        query_lengths: Value | None = None, causal: bool = False,
    ) -> Value:  # fmt: skip
        """The output for `projected` queries and a `pair` of projected keys and values; lengths and
        `causal` as of `ops.attention`."""
        found = ops.attention(
            projected, *pair, heads=self.num_heads, causal=causal, key_lengths=key_lengths,
            query_lengths=query_lengths, dropout=self.dropout,
        )  # fmt: skip
        return self.out_proj(found)

    def cache(self, x: Value, steps: int) -> Pair:
        """Keys and values of no step yet, with room for so many, for each sample of x.

        Raises OptionError for `steps` below 1.
        """
        check_whole("MultiHeadAttention.cache", 1, steps=steps)
        shape = (x.shape[0], steps, self.embed_dim)
        return x.graph.full(shape, 0.0, batched=True), x.graph.full(shape, 0.0, batched=True)

    def step(self, x: Value, cache: Pair, place: Place) -> tuple[Value, Pair]:
        """One step of causal self attention, for generation: its keys and values join those of the
        steps before, which are in the cache.

        Args:
            x: the step's input, shape (batch, E).
            cache: what the step before has returned; in the beginning that of `cache`.
            place: which step it is.

        Returns:
            The output of shape (batch, E), and the cache with this step. Both may be carried by
            `ops.loop`.

        Raises ShapeError for another size than `embed_dim`.
        """
        one = ops.reshape(x, (x.shape[0], 1, x.shape[1]))
        self._check(one, "input", self.embed_dim)
        if self.joined:
            q, k, v = ops.split(ops.linear(one, self.in_proj_weight, self.in_proj_bias), 3)
        else:
            q, (k, v) = self.project(one), (self._project(one, 1), self._project(one, 2))
        if self.positions is not None:
            q, k = (self.positions(y, self.num_heads, place) for y in (q, k))
        keys, values = (
            ops.put_row(old, ops.reshape(new, x.shape), place.number)
            for new, old in zip((k, v), cache, strict=True)
        )
        y = self.attend(q, (keys, values), place.lengths)
        return ops.reshape(y, x.shape), (keys, values)

    def _rotated(self, x: Value) -> Value:
        return x if self.positions is None else self.positions(x, self.num_heads)

    def _project(self, x: Value, first: int, last: int | None = None) -> Value:
        """The projections number `first` to `last` side by side."""
        size, last = self.embed_dim, first if last is None else last
        bias: Value | None = None
        if self.in_proj_bias is not None:
            whole = as_value(x.graph, self.in_proj_bias)
            bias = ops.columns(whole, first * size, (last + 1) * size)
        if self.joined:
            weight = as_value(x.graph, self.in_proj_weight)
            weight = ops.columns(weight, first * size, (last + 1) * size)
        else:
            given = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[first]
            weight = as_value(x.graph, given)
        product: Value = x.graph.apply("linear", x=x, w=weight, bias=bias)
        return product

    def _check(self, x: Value, name: str, size: int) -> None:
        if x.ndim != 3 or x.shape[2] != size:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected {name} of shape (batch, steps, {size}), "
                f"got {x.shape}; change embed_dim, kdim or vdim, or reshape it"
            )

    def extra(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}"


def _projection(rows: int, columns: int) -> Parameter:
    return Parameter((rows, columns), init.get("xavier_uniform"), transposed=True)


publish(globals(), type)
