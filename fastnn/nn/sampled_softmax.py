"""Softmax over many classes, of which a training step looks at a sample."""

from __future__ import annotations

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_numbers, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.ops.beam import _ids
from fastnn.public import publish

#: taken off the score of a sampled class that is the target itself
HIT = 1e9


class SampledSoftmax(Module):
    """Cross entropy over many classes, estimated in training from the target and a sample of others
    (Bengio & Senécal 2008, "Adaptive importance sampling to accelerate training of a neural
    probabilistic language model"; Jean et al. 2015, "On using very large target vocabulary for
    neural machine translation")::

        loss = -y_t + log(e^(y_t) + sum over drawn c, other than t, of e^(y_c) / (samples Q(c)))
        y = W x + b,  Q(c) = log((c + 2) / (c + 1)) / log(V + 1)

    The sum is an unbiased estimate of that over all classes but the target t. One sample, drawn
    from Q with replacement, is for all rows of a mini-batch. (TensorFlow's `sampled_softmax_loss`
    draws each class at most once, and takes log(samples Q) off the target's score as well.) Classes
    have to be sorted by how frequent they are, the most frequent first. In evaluation the loss is
    that of all classes.

    Where the weights of a class are also the vector of a word that is read, `augmented` has the net
    learn from words that are like the target, too (Inan, Khosravi & Socher 2017, "Tying word
    vectors and word classifiers"): in training it adds, over the drawn c::

        augmented variance(W_c (x - W_t)),  W_t being a constant

    This is what their term, alpha times a divergence at a temperature T, becomes at a high one, for
    augmented = alpha / (2 T^2); but they look at all classes alike.

    Args:
        in_features: C, size of a row.
        n_classes: V.
        samples: how many classes are drawn.
        augmented: weight of the term above, 0 for none.

    Attributes:
        weight, bias: those of `Linear` from C to V, shapes (V, C) and (V,).
        full: whether training takes all classes as well; may be changed between epochs.

    Shapes: input (..., C), target (...) of integers; returns the losses (...). `logits` gives the
    scores of all classes, (..., V).

    Raises:
        OptionError, ShapeError: the arguments do not fit. DataError, when data come in: targets
            that are no class.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> softmax = nn.SampledSoftmax(16, 1000, samples=50)
    >>> softmax.predict(np.ones((8, 16), np.float32), np.arange(8)).shape
    (8,)
    """

    def __init__(
        self, in_features: int, n_classes: int, samples: int = 1000, augmented: float = 0.0
    ):
        name = type(self).__name__
        check_whole(name, 1, in_features=in_features, n_classes=n_classes, samples=samples)
        check_numbers(name, augmented=augmented)
        if augmented < 0:
            raise OptionError(f"{name}: expected augmented >= 0, got {augmented}")
        self.in_features, self.n_classes, self.samples = in_features, n_classes, samples
        self.augmented, self.full = augmented, False
        self.weight = Parameter((n_classes, in_features), init.torch_linear)
        self.bias = Parameter((n_classes,), 0.0)

    def forward(self, x: Value, target: Value) -> Value:
        if target.shape != x.shape[:-1] or target.dtype != "i":
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected a target of integers of shape "
                f"{x.shape[:-1]}, got {target.shape} of type {target.dtype!r}"
            )
        rows = ops.reshape(x, (-1, x.shape[-1]))
        flat = ops.reshape(target, (rows.shape[0],))
        if x.graph.training and not self.full:
            loss = self._estimate(rows, flat)
        else:
            x.graph.limit(target, 0, self.n_classes)
            loss = x.graph.apply(
                "cross_entropy", x=self.logits(rows), target=flat, weight=None, smoothing=0.0
            )
        return ops.reshape(loss, x.shape[:-1])

    def logits(self, x: Value) -> Value:
        """The scores of all classes.

        Raises ShapeError for another last dimension.
        """
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (..., "
                f"{self.in_features}), got {x.shape}; change in_features"
            )
        return ops.linear(x, self.weight, self.bias)

    def _estimate(self, x: Value, target: Value) -> Value:
        graph, count = x.graph, x.shape[0]
        classes = np.arange(self.n_classes)
        expected = np.log(self.samples * np.log1p(1 / (classes + 1)) / np.log(self.n_classes + 1))
        table = graph.constant(expected[:, None], name="expected")
        bias = ops.reshape(ops.as_value(graph, self.bias), (self.n_classes, 1))
        drawn = self._drawn(x)
        own = ops.sum(ops.multiply(x, ops.embedding(target, self.weight)), 1, keepdims=True)
        own = own + ops.embedding(target, bias)
        shift = ops.embedding(drawn, bias) - ops.embedding(drawn, table)
        weights = ops.transpose(ops.embedding(drawn, self.weight))
        others = raw = ops.matmul(x, weights)
        others = others + ops.reshape(shift, (1, self.samples))
        hits = ops.equal(
            ops.reshape(ops.astype(target), (count, 1)),
            ops.reshape(ops.astype(drawn), (1, self.samples)),
        )
        scores = ops.concatenate(own, others - HIT * hits)
        loss = ops.negate(ops.log_softmax(scores)[:, :1])
        if self.augmented:
            like = ops.detach(ops.matmul(ops.embedding(target, self.weight), weights))
            apart = raw - like
            apart = apart - ops.mean(apart, 1, keepdims=True)
            loss = loss + self.augmented * ops.mean(apart * apart, 1, keepdims=True)
        return ops.reshape(loss, (count,))

    def _drawn(self, x: Value) -> Value:
        """Classes drawn from Q: integers (samples,)."""
        u = ops.uniform_like(x.graph.full((self.samples, 1), 0.0))
        found = ops.exp(u * float(np.log(self.n_classes + 1))) - 1.0
        found = ops.minimum(ops.maximum(found, 0.0), float(self.n_classes - 1))
        return ops.reshape(_ids(found), (self.samples,))

    def extra(self) -> str:
        more = f", augmented={self.augmented:g}" if self.augmented else ""
        return f"{self.in_features}, {self.n_classes}, samples={self.samples}{more}"


publish(globals(), type)
