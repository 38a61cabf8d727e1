"""Layers with weight matrices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_flags, check_numbers, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.public import publish


class Linear(Module):
    """A fully connected layer on the last dimension: ``y = x @ weight.T + bias``.

    It can share its weight with another layer (Press & Wolf 2017): ``linear.weight =
    embedding.weight`` ties the output layer of a language model to its embedding. The two then have
    one parameter, under the name that comes first, and its gradients are summed.

    Args:
        in_features: C, the size of the input's last dimension.
        out_features: K, the size of the output's last dimension.
        bias: whether to add a bias.
        weight_init: initialiser of `weight`; None is PyTorch's default, uniform within
            ±1/sqrt(in_features).
        bias_init: initialiser of `bias`; None is PyTorch's default, the same range.

    Attributes:
        weight: shape (K, C), kept transposed in memory.
        bias: shape (K,), or None.

    Shapes: input (batch, ..., C), output (batch, ..., K). Another last dimension raises ShapeError.

    Raises OptionError for sizes below 1.

    >>> from fastnn import nn
    >>> nn.Linear(3, 2).weight.shape
    (2, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weight_init: str | float | Callable[..., Any] | None = None,
        bias_init: str | float | Callable[..., Any] | None = None,
    ):
        check_whole("Linear", 1, in_features=in_features, out_features=out_features)
        check_flags("Linear", bias=bias)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(
            (out_features, in_features),
            init.torch_linear if weight_init is None else weight_init,
            transposed=True,
        )
        default = init.get("torch_bias", fan_in=in_features)
        self.bias = (
            Parameter((out_features,), default if bias_init is None else bias_init)
            if bias
            else None
        )

    def forward(self, x: Value) -> Value:
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (batch, ..., "
                f"{self.in_features}), got {x.shape}; change in_features or flatten the input"
            )
        if self.weight.shape != (self.out_features, self.in_features):
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected a weight of shape ({self.out_features}, "
                f"{self.in_features}), got {self.weight.shape}; tie it to one of that shape"
            )
        return ops.linear(x, self.weight, self.bias)

    def _sample_shape(self) -> tuple[int, ...]:
        return (self.in_features,)

    def extra(self) -> str:
        return f"{self.in_features}, {self.out_features}" + (
            ", bias=False" if self.bias is None else ""
        )


class Embedding(Module):
    """A lookup table: one trained vector for each id.

    Args:
        num_embeddings: V, the number of ids; ids are the integers 0 to V-1.
        embedding_dim: C, the size of a vector.
        padding_idx: an id whose vector starts as zeros and is not trained, or None.
        weight_init: initialiser of `weight`; None is standard normal, as in PyTorch.
        dropout: probability that an id's vector is zero in training, wherever the mini-batch has
            the id; the others are multiplied by 1 / (1 - p) (Gal & Ghahramani 2016, "A
            theoretically grounded application of dropout in recurrent neural networks"; 0.1 in
            AWD-LSTM). In [0, 1).

    Attributes:
        weight: the vectors, shape (V, C).

    Shapes: input (batch, ...) of integers; output (batch, ..., C). Ids outside 0 to V-1 in data
    raise DataError before a kernel sees them.

    Raises OptionError for sizes below 1, a `padding_idx` that is no id and a `dropout` outside [0,
    1).

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Embedding(100, 8).predict(np.zeros((2, 5), np.int64)).shape
    (2, 5, 8)
    """

    _takes_ids = True

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        weight_init: str | float | Callable[..., Any] | None = None,
        dropout: float = 0.0,
    ):
        check_numbers("Embedding", dropout=dropout)
        if not 0 <= dropout < 1:
            raise OptionError(f"Embedding: expected dropout in [0, 1), got {dropout}")
        self.dropout = float(dropout)
        check_whole("Embedding", 1, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None:
            check_whole("Embedding", 0, padding_idx=padding_idx)
        if padding_idx is not None and not 0 <= padding_idx < num_embeddings:
            raise OptionError(
                f"Embedding: expected padding_idx in 0..{num_embeddings - 1}, got {padding_idx}"
            )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        fill = init.get("normal", std=1.0) if weight_init is None else init.get(weight_init)
        if padding_idx is not None:
            fill = functools.partial(_with_padding, fill=fill, padding=padding_idx)
        self.weight = Parameter((num_embeddings, embedding_dim), fill)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight" and isinstance(value, Parameter):  # rows are looked up in memory
            value = value.untransposed()
        super().__setattr__(name, value)

    def forward(self, ids: Value) -> Value:
        padding = -1 if self.padding_idx is None else self.padding_idx
        vectors = ops.embedding(ids, self.weight, padding)
        if not (self.dropout and ids.graph.training):
            return vectors
        mask = ops.dropout(ids.graph.full((self.num_embeddings, 1), 1.0), self.dropout)
        return ops.multiply(vectors, ops.embedding(ids, mask))

    def extra(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


def _with_padding(
    shape: tuple[int, ...], rng: np.random.Generator, *, fill: Any, padding: int
) -> np.ndarray:
    """A table as `fill` gives it, with one row of zeros."""
    table = np.array(fill(shape, rng))
    table[padding] = 0.0
    return table


publish(globals(), type)
