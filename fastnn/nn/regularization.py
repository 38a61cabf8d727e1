"""Dropout and normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastnn import ops
from fastnn.errors import (
    OptionError,
    ShapeError,
    check_eps,
    check_flags,
    check_numbers,
    check_whole,
    is_whole,
    where,
)
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.public import publish


class Dropout(Module):
    """Sets elements to zero with probability `p` in training (Srivastava et al. 2014).

    Args:
        p: probability of zero, in [0, 1).
        classic: if False, the elements that are kept are multiplied by 1/(1-p) in training
            (inverted dropout, as in PyTorch and Keras). If True, nothing is scaled in training, and
            everything is multiplied by 1-p in evaluation, as in the paper.

    The mask depends only on the seed, the step, the layer and the position of the element, never on
    the number of workers. Input and output have the same shape; evaluation changes nothing (unless
    `classic`).

    Raises OptionError for a `p` outside [0, 1).

    >>> import numpy as np
    >>> from fastnn import nn
    >>> bool((nn.Dropout(0.5).predict(np.ones((2, 3), np.float32)) == 1).all())
    True
    """

    def __init__(self, p: float = 0.5, classic: bool = False):
        check_numbers("Dropout", p=p)
        if not 0 <= p < 1:
            raise OptionError(f"Dropout: expected p in [0, 1), got {p}")
        check_flags("Dropout", classic=classic)
        self.p, self.classic = float(p), bool(classic)

    def forward(self, x: Value) -> Value:
        if self.p == 0:
            return x
        if x.graph.training:
            return ops.dropout(x, self.p, 1.0 if self.classic else None)
        return ops.affine(x, 1.0 - self.p, 0.0) if self.classic else x

    def extra(self) -> str:
        return f"{self.p}" + (", classic=True" if self.classic else "")


class AnnealedDropout(Module):
    """Dropout with a rate that may change while a model is trained (Rennie, Goel & Thomas 2014,
    "Annealed dropout training of deep networks").

    The rate is a number in the model's memory, the buffer `rate`, so a change needs no new program.
    `callbacks.AnnealDropout` lowers it from epoch to epoch; in a training loop of your own, call
    `set_rate`. In training the elements that are kept are multiplied by 1 / (1 - rate); evaluation
    changes nothing.

    Args:
        p: the rate at the beginning, in [0, 1).

    Attributes:
        rate: the rate now, a buffer of shape (1,).

    Raises OptionError for a `p` outside [0, 1).

    >>> import fastnn as fnn
    >>> from fastnn import callbacks, nn
    >>> net = nn.Sequential(
    ...     nn.Linear(784, 800), nn.ReLU(), nn.AnnealedDropout(0.5), nn.Linear(800, 10)
    ... )
    >>> trainer = fnn.Trainer(net, "cross_entropy", "adam")
    >>> falling = callbacks.AnnealDropout(20)  # for `fit`: no dropout from epoch 20 on
    """

    def __init__(self, p: float = 0.5):
        self.p = self._checked(p)
        self.rate = Parameter((1,), self.p, trainable=False)

    @staticmethod
    def _checked(p: float) -> float:
        check_numbers("AnnealedDropout", p=p)
        if not 0 <= p < 1:
            raise OptionError(f"AnnealedDropout: expected p in [0, 1), got {p}")
        return float(p)

    def set_rate(self, p: float) -> None:
        """Set the rate, in [0, 1), from now on.

        Raises OptionError for any other rate.
        """
        self.rate.value = [self._checked(p)]

    def forward(self, x: Value) -> Value:
        return ops.dropout(x, self.rate) if x.graph.training else x

    def extra(self) -> str:
        return f"{self.p}"


def _normalized(name: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    """The sizes of the last axes, which a layer normalises together."""
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if not sizes or not all(is_whole(n, 1) for n in sizes):
        raise OptionError(f"{name}: expected the sizes of the last axes, all >= 1, got {shape!r}")
    return tuple(int(n) for n in sizes)


class _RowNorm(Module):
    """What normalises the last axes of an input, as one row."""

    num_features: int | tuple[int, ...]
    shape: tuple[int, ...]

    def _rows(self, x: Value) -> Value:
        """The input with the axes that are normalised as one."""
        if len(self.shape) == 1:
            return x
        if x.shape[-len(self.shape) :] != self.shape:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected an input whose last axes are "
                f"{self.shape}, got shape {x.shape}"
            )
        return ops.reshape(x, (*x.shape[: -len(self.shape)], -1))

    def _vector(self, parameter: Parameter | None, x: Value) -> Value | None:
        """A parameter as one row."""
        if parameter is None or len(self.shape) == 1:
            return None if parameter is None else ops.as_value(x.graph, parameter)
        return ops.reshape(ops.as_value(x.graph, parameter), -1)

    def extra(self) -> str:
        return f"{self.num_features}"


class LayerNorm(_RowNorm):
    """Normalises each row to mean 0 and variance 1, then applies a gain and a bias (Ba et al.
    2016).

    Args:
        num_features: C, the size of the last dimension, or the sizes of several last dimensions,
            which are then normalised together (PyTorch's `normalized_shape`).
        eps: added to the variance.
        affine: whether to apply a gain and a bias.
        bias: whether to apply a bias with the gain.

    Attributes:
        weight, bias: gain and bias, each of shape (C,) or of the given sizes, or None.

    Shapes: input and output (batch, ..., C). Other last dimensions raise ShapeError.

    Raises OptionError for sizes below 1 and a negative `eps`.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.LayerNorm(4).predict(np.arange(8.0).reshape(2, 4)).shape
    (2, 4)
    """

    def __init__(
        self, num_features: int | Sequence[int], eps: float = 1e-5, affine: bool = True,
        bias: bool = True,
    ):  # fmt: skip
        self.shape = _normalized("LayerNorm", num_features)
        check_eps("LayerNorm", eps)
        check_flags("LayerNorm", affine=affine, bias=bias)
        self.num_features = self.shape[0] if len(self.shape) == 1 else self.shape
        self.eps = float(eps)
        self.weight = Parameter(self.shape, 1.0) if affine else None
        self.bias = Parameter(self.shape, 0.0) if affine and bias else None

    def forward(self, x: Value) -> Value:
        gain, bias = self._vector(self.weight, x), self._vector(self.bias, x)
        y = ops.layer_norm(self._rows(x), gain, bias, self.eps)
        return y if y.shape == x.shape else ops.reshape(y, x.shape)


class RMSNorm(_RowNorm):
    """Divides each row by its root mean square, then applies a gain (Zhang & Sennrich 2019)::

        y = x / sqrt(mean(x^2) + eps) * weight

    Args:
        num_features: C, the size of the last dimension, or the sizes of several last dimensions,
            which are then normalised together.
        eps: added to the mean square; None is machine epsilon (2^-23 in float32), as in PyTorch.
        affine: whether to apply a gain.

    Attributes:
        weight: the gain, of shape (C,) or of the given sizes; None without `affine`.

    Shapes: input and output (batch, ..., C). Other last dimensions raise ShapeError.

    Raises OptionError for sizes below 1 and a negative `eps`.

    >>> from fastnn import nn
    >>> nn.RMSNorm(8).parameter_count
    8
    """

    def __init__(
        self, num_features: int | Sequence[int], eps: float | None = None, affine: bool = True
    ):
        self.shape = _normalized("RMSNorm", num_features)
        check_flags("RMSNorm", affine=affine)
        if eps is not None:
            check_eps("RMSNorm", eps)
        self.num_features = self.shape[0] if len(self.shape) == 1 else self.shape
        self.eps = None if eps is None else float(eps)
        self.weight = Parameter(self.shape, 1.0) if affine else None

    def forward(self, x: Value) -> Value:
        rows = self._rows(x)
        width = int(np.prod(self.shape))
        if rows.shape[-1] != width:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected {width} features, got input of shape "
                f"{x.shape}; set the layer's size to {x.shape[-1]}"
            )
        eps = float(np.finfo(x.graph.dtype).eps) if self.eps is None else self.eps
        y = ops.rms_norm(rows, self._vector(self.weight, x), eps)
        return y if y.shape == x.shape else ops.reshape(y, x.shape)


def _check_momentum(name: str, momentum: float) -> None:
    check_numbers(name, momentum=momentum)
    if not 0 <= momentum <= 1:
        raise OptionError(f"{name}: expected momentum in [0, 1], got {momentum}")


class BatchNorm(Module):
    """Normalises each feature over the batch (Ioffe & Szegedy 2015); features come last.

    Training uses the batch's mean and (biased) variance. Evaluation uses running averages of them,
    with the unbiased variance, as in PyTorch.

    Args:
        num_features: C, the size of the last dimension.
        eps: added to the variance.
        momentum: weight of the new batch in the running averages.
        affine: whether to apply a gain and a bias.
        track_running_stats: whether to keep running averages. If False, evaluation also uses the
            statistics of its own batch.

    Attributes:
        weight, bias: gain and bias, shape (C,), or None. running_mean, running_var: buffers of
            shape (C,), or None.

    Shapes: input and output (batch, ..., C); statistics are taken over all dimensions but the last.
    Another last dimension raises ShapeError.

    Raises OptionError for sizes below 1, a negative `eps` and a `momentum` outside [0, 1].

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.BatchNorm(3).predict(np.ones((2, 3), np.float32)).shape
    (2, 3)
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
        track_running_stats: bool = True,
    ):  # fmt: skip
        check_whole("BatchNorm", 1, num_features=num_features)
        check_eps("BatchNorm", eps)
        check_flags("BatchNorm", affine=affine, track_running_stats=track_running_stats)
        _check_momentum("BatchNorm", momentum)
        self.num_features, self.eps, self.momentum = int(num_features), float(eps), float(momentum)
        shape = (num_features,)
        self.weight = Parameter(shape, 1.0) if affine else None
        self.bias = Parameter(shape, 0.0) if affine else None
        tracked = track_running_stats
        self.running_mean = Parameter(shape, 0.0, trainable=False) if tracked else None
        self.running_var = Parameter(shape, 1.0, trainable=False) if tracked else None

    def forward(self, x: Value) -> Value:
        return ops.batch_norm(
            x, self.weight, self.bias, self.running_mean, self.running_var, self.eps, self.momentum
        )

    def extra(self) -> str:
        return f"{self.num_features}"


publish(globals(), type)
