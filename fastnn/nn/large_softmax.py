"""Softmax over many classes in less time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastnn import ops
from fastnn.errors import (
    OptionError,
    ShapeError,
    check_flags,
    check_numbers,
    check_whole,
    is_whole,
    where,
)
from fastnn.graph.value import Value
from fastnn.nn.containers import Sequential
from fastnn.nn.linear import Linear
from fastnn.nn.module import Module
from fastnn.ops.beam import _ids, likeliest
from fastnn.public import publish

#: a class that rows of other clusters have
ELSEWHERE = -1


class AdaptiveLogSoftmaxWithLoss(Module):
    """Adaptive softmax (Grave et al. 2017, "Efficient softmax approximation for GPUs"), with
    PyTorch's names, shapes and numbers.

    Classes are sorted by how frequent they are. The first ones, the shortlist, are classes of the
    head, as is each cluster of rare ones; a cluster has a softmax of its own, over features that
    are projected to fewer numbers the rarer its classes are::

        log p(c) = log p_head(c)                         (shortlist)
        log p(c) = log p_head(cluster) + log p_cluster(c)

    Args:
        in_features: C, size of a row.
        n_classes: V.
        cutoffs: where clusters begin, growing, each in 1..V-1: the shortlist has ``cutoffs[0]``
            classes.
        div_value: cluster number i (from 0) has ``C // div_value**(i + 1)`` features.
        head_bias: whether the head has a bias.

    Attributes:
        head: `Linear` from C to the shortlist and the clusters.
        tail: for each cluster a `Sequential` of two `Linear` layers without bias.

    Shapes: input (..., C), target (...) of integers; returns the target's log-probabilities (...),
    and the mean of their negatives. Every cluster is computed for all rows: the gain is that of the
    smaller products, without a search for the rows that need them.

    Raises:
        OptionError, ShapeError: the arguments do not fit. DataError, when data come in: targets
            that are no class.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> softmax = nn.AdaptiveLogSoftmaxWithLoss(16, 1000, cutoffs=[50, 200])
    >>> x, target = np.ones((8, 16), np.float32), np.arange(8) * 100
    >>> log_p, loss = softmax.predict(x, target)
    >>> log_p.shape, loss.shape
    ((8,), ())
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False,
    ):  # fmt: skip
        name = type(self).__name__
        check_whole(name, 1, in_features=in_features, n_classes=n_classes)
        check_numbers(name, div_value=div_value)
        check_flags(name, head_bias=head_bias)
        given, cutoffs = cutoffs, list(cutoffs) if isinstance(cutoffs, Sequence) else []
        fits = all(is_whole(c, 1) and c < n_classes for c in cutoffs)
        if not cutoffs or not fits or cutoffs != sorted(set(cutoffs)):
            raise OptionError(
                f"{name}: expected growing cutoffs, each in 1..{n_classes - 1}, got {given!r}"
            )
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs, self.div_value = [*map(int, cutoffs), n_classes], float(div_value)
        self.shortlist = self.cutoffs[0]
        clusters = len(cutoffs)
        self.head = Linear(in_features, self.shortlist + clusters, bias=head_bias)
        tail = []
        for i in range(clusters):
            size = int(in_features // (div_value ** (i + 1))) if div_value > 0 else 0
            if size < 1:
                raise OptionError(
                    f"{name}: div_value={div_value} leaves cluster {i} without features; expected "
                    f"one that leaves some of {in_features}"
                )
            classes = self.cutoffs[i + 1] - self.cutoffs[i]
            tail.append(
                Sequential(Linear(in_features, size, bias=False), Linear(size, classes, bias=False))
            )
        self.tail = tail

    def _check(self, x: Value) -> None:
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (..., "
                f"{self.in_features}), got {x.shape}; change in_features"
            )

    def _table(self) -> np.ndarray:
        """For each class its class in the head, and in each cluster (or `ELSEWHERE`)."""
        classes = np.arange(self.n_classes)
        table = np.full((self.n_classes, len(self.cutoffs)), ELSEWHERE)
        table[:, 0] = classes
        for i, (low, high) in enumerate(zip(self.cutoffs[:-1], self.cutoffs[1:], strict=True)):
            table[low:high, 0] = self.shortlist + i
            table[low:high, i + 1] = classes[low:high] - low
        return table

    def forward(self, x: Value, target: Value) -> tuple[Value, Value]:
        self._check(x)
        if target.shape != x.shape[:-1] or target.dtype != "i":
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected a target of integers of shape "
                f"{x.shape[:-1]}, got {target.shape} of type {target.dtype!r}"
            )
        graph, lead = x.graph, x.shape[:-1]
        rows = ops.reshape(x, (-1, self.in_features))
        flat = ops.reshape(target, (rows.shape[0],))
        places = ops.embedding(flat, graph.constant(self._table().astype(float), name="classes"))
        loss = _losses(self.head(rows), places, 0)
        for i, cluster in enumerate(self.tail):
            loss = ops.add(loss, _losses(cluster(rows), places, i + 1))
        return ops.reshape(ops.negate(loss), lead), ops.mean(loss)

    def log_prob(self, x: Value) -> Value:
        """Log-probabilities of all classes, (..., V).

        Raises ShapeError for another last dimension.
        """
        self._check(x)
        head = ops.log_softmax(self.head(x))
        parts = [head[..., : self.shortlist]]
        for i, cluster in enumerate(self.tail):
            own = head[..., self.shortlist + i : self.shortlist + i + 1]
            parts.append(ops.add(ops.log_softmax(cluster(x)), own))
        return ops.concatenate(*parts, axis=-1)

    def likeliest(self, x: Value) -> Value:
        """The likeliest class of each row, integers (...): PyTorch's `predict`."""
        found = self.log_prob(x)
        flat = likeliest(ops.reshape(found, (-1, self.n_classes)))
        return ops.reshape(flat, x.shape[:-1])

    def extra(self) -> str:
        return f"{self.in_features}, {self.n_classes}, cutoffs={self.cutoffs[:-1]}"


def _losses(logits: Value, places: Value, column: int) -> Value:
    """Cross entropy of the rows that have a class in a column of places, 0 of the others."""
    ids = ops.reshape(_ids(places[:, column : column + 1]), (logits.shape[0],))
    loss: Value = logits.graph.apply(
        "cross_entropy", x=logits, target=ids, weight=None, smoothing=0.0, ignore_index=ELSEWHERE
    )
    return loss


publish(globals(), type)
