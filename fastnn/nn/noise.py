"""Random regularisation: noise, and forms of dropout other than `Dropout`.

In evaluation each layer applies its average effect. The random numbers depend only on the seed, the
step, the layer and the element, not on the number of workers.
"""

from __future__ import annotations

import functools
import math
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

#: added to the variance of `DropConnect`'s sums, far below what matters
TINY = 1e-12


def _probability(name: str, p: Any) -> float:
    """A probability in [0, 1)."""
    check_numbers(name, p=p)
    if not 0 <= p < 1:
        raise OptionError(f"{name}: expected p in [0, 1), got {p}")
    return float(p)


class GaussianNoise(Module):
    """Adds normally distributed noise in training, ``y = x + N(0, std²)``.

    Applied to the inputs this is training with noise (Bishop 1995), which for a small `std` acts as
    a penalty on the slope of the model.

    Args:
        std: standard deviation, >= 0.

    The input has any shape, the output the same.

    Raises OptionError for a negative `std`.

    >>> from fastnn import nn
    >>> nn.Sequential(nn.GaussianNoise(0.1), nn.Linear(784, 10))
    Sequential(
      (0): GaussianNoise(0.1)
      (1): Linear(784, 10)
    )
    """

    def __init__(self, std: float = 0.1):
        check_numbers("GaussianNoise", std=std)
        if not std >= 0:
            raise OptionError(f"GaussianNoise: expected std >= 0, got {std}")
        self.std = float(std)

    def forward(self, x: Value) -> Value:
        if not (x.graph.training and self.std):
            return x
        return ops.add(x, ops.normal_like(x, 0.0, self.std))

    def extra(self) -> str:
        return f"{self.std}"


class GaussianDropout(Module):
    """Multiplies by normally distributed noise in training, ``y = x N(1, p / (1 - p))``: dropout's
    mean and variance without zeros (Srivastava et al. 2014, section 10).

    Args:
        p: the rate of the dropout with this variance, in [0, 1).

    The input has any shape, the output the same.

    Raises OptionError for a `p` outside [0, 1).

    >>> nn.GaussianDropout(0.3).predict(np.ones((1, 3), np.float32))
    array([[1., 1., 1.]], dtype=float32)
    """

    def __init__(self, p: float = 0.5):
        self.p = _probability("GaussianDropout", p)

    def forward(self, x: Value) -> Value:
        if not (x.graph.training and self.p):
            return x
        return ops.multiply(x, ops.normal_like(x, 1.0, math.sqrt(self.p / (1.0 - self.p))))

    def extra(self) -> str:
        return f"{self.p}"


def one_mask(x: Value, p: float) -> Value:
    """Dropout with one mask for all positions of a sample."""
    shape = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
    return ops.multiply(x, ops.dropout(x.graph.full(shape, 1.0, x.batched), p))


class SpatialDropout(Module):
    """Sets whole features to zero in training: each at all positions of a sample or at none.

    Over images these are feature maps (Tompson et al. 2015); over sequences one mask for all steps,
    the variational dropout of Gal & Ghahramani (2016). The kept elements are multiplied by
    1 / (1 - p).

    Args:
        p: probability of zero, in [0, 1).

    The input has shape (batch, ..., features), with one or more axes between.

    Raises OptionError for a `p` outside [0, 1); ShapeError for an input of fewer than three axes.

    >>> from fastnn import nn
    >>> layers = nn.Sequential(nn.Embedding(1000, 32), nn.SpatialDropout(0.3), nn.LSTM(32, 64))
    """

    def __init__(self, p: float = 0.5):
        self.p = _probability("SpatialDropout", p)

    def forward(self, x: Value) -> Value:
        if x.ndim < 3:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (batch, ..., features) "
                f"with three or more axes, got {x.shape}; use nn.Dropout"
            )
        if not (x.graph.training and self.p):
            return x
        return one_mask(x, self.p)

    def extra(self) -> str:
        return f"{self.p}"


class DropConnect(Module):
    """A `Linear` layer whose weights are set to zero in training, each with probability `p` (Wan
    et al. 2013).

    In training ``y = x (M ∘ W)ᵀ + b``, which is not scaled. In evaluation the distribution over all
    masks is taken to be normal, as in the paper, with mean ``(1 - p) x Wᵀ + b`` and variance
    ``p (1 - p) x² (W²)ᵀ``. With ``points=n`` the result is the mean of the activation over that
    distribution, by Gauss-Hermite quadrature with n points (the paper draws samples, which converge
    to the same); with ``points=0`` it is the activation of the mean. So give the activation to the
    layer: one that follows it sees the mean alone, far from what training had if inputs are few.

    With ``masks="batch"`` all samples of a mini-batch have the same mask, which costs little. The
    paper has a mask for each sample. ``masks="sample"`` trains with sums drawn from the normal
    distribution above, for each sample and unit by itself (units share no weights, so their masks
    are independent; Wang & Manning 2013, "Fast dropout training"): gradients vary less, for twice
    the products. The two agree in mean and variance.

    Args:
        in_features, out_features: sizes C and K.
        p: probability of zero, in [0, 1).
        activation: the activation that follows, a module such as ``nn.ReLU()``, or None.
        points: points of the quadrature; each costs one evaluation of the activation.
        bias: whether to add a bias.
        masks: "batch" or "sample", see above.
        weight_init, bias_init: initialisers, as of `Linear`.

    Attributes:
        weight: shape (K, C), kept transposed in memory.
        bias: shape (K,), or None.

    Raises OptionError for sizes below 1, a `p` outside [0, 1) and unknown `masks`; ShapeError for
    another last dimension.

    >>> from fastnn import nn
    >>> nn.DropConnect(784, 800, activation=nn.ReLU()).weight.shape
    (800, 784)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        p: float = 0.5,
        activation: Module | None = None,
        points: int = 5,
        bias: bool = True,
        masks: str = "batch",
        weight_init: str | float | Callable[..., Any] | None = None,
        bias_init: str | float | Callable[..., Any] | None = None,
    ):
        check_whole("DropConnect", 1, in_features=in_features, out_features=out_features)
        check_whole("DropConnect", 0, points=points)
        check_flags("DropConnect", bias=bias)
        if masks not in ("batch", "sample"):
            raise OptionError(f"DropConnect: expected masks 'batch' or 'sample', got {masks!r}")
        self.in_features, self.out_features = in_features, out_features
        self.p, self.points = _probability("DropConnect", p), points
        self.activation, self.masks = activation, masks
        default = init.torch_linear if weight_init is None else weight_init
        self.weight = Parameter((out_features, in_features), default, transposed=True)
        start = init.get("torch_bias", fan_in=in_features) if bias_init is None else bias_init
        self.bias = Parameter((out_features,), start) if bias else None

    def forward(self, x: Value) -> Value:
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (batch, ..., "
                f"{self.in_features}), got {x.shape}; change in_features or flatten the input"
            )
        training, p = x.graph.training, self.p
        weight = ops.as_value(x.graph, self.weight)  # as it lies in memory, (C, K)
        if not p or (training and self.masks == "batch"):
            return self._activated(
                ops.linear(x, ops.dropout(weight, p, 1.0) if p else weight, self.bias)
            )
        y = ops.affine(ops.linear(x, weight), 1.0 - p, 0.0)
        if self.bias is not None:
            y = ops.add(y, self.bias)
        if not (training or self.points):
            return self._activated(y)
        std = self._deviation(x)
        if training:
            return self._activated(y + std * ops.normal_like(y))
        places, shares = np.polynomial.hermite_e.hermegauss(self.points)
        parts = [
            self._activated(y + std * float(place)) * (float(share) / math.sqrt(2.0 * math.pi))
            for place, share in zip(places, shares, strict=True)
        ]
        return functools.reduce(ops.add, parts)

    def _deviation(self, x: Value) -> Value:
        """The standard deviation of each sum over all masks; where it is 0 its slope is finite."""
        squares = ops.square(ops.as_value(x.graph, self.weight))
        variance = ops.linear(ops.square(x), squares)
        return ops.sqrt(ops.affine(variance, self.p * (1.0 - self.p), TINY))

    def _activated(self, y: Value) -> Value:
        return y if self.activation is None else self.activation(y)

    def _sample_shape(self) -> tuple[int, ...]:
        return (self.in_features,)

    def extra(self) -> str:
        masks = "" if self.masks == "batch" else f", masks={self.masks!r}"
        return f"{self.in_features}, {self.out_features}, p={self.p}{masks}"


class Standout(Module):
    """Dropout with a rate for each unit that depends on its input (Ba & Frey 2013): a unit with
    pre-activation z is kept with probability ``sigmoid(alpha z + beta)``.

    The belief network that gives the probabilities shares the weights of the layer before, as in
    section 3 of the paper. In evaluation each unit is multiplied by its probability. Gradients pass
    through the activation alone.

    Args:
        activation: the function of z, such as ``nn.ReLU()`` (the default).
        alpha, beta: scale and shift of the probabilities.

    The input has any shape, the output the same.

    Raises OptionError unless `alpha` and `beta` are finite numbers.

    >>> from fastnn import nn
    >>> net = nn.Sequential(nn.Linear(784, 800), nn.Standout(), nn.Linear(800, 10))
    """

    def __init__(self, activation: Module | None = None, alpha: float = 1.0, beta: float = 0.0):
        check_numbers("Standout", alpha=alpha, beta=beta)
        self.activation, self.alpha, self.beta = activation, float(alpha), float(beta)

    def forward(self, x: Value) -> Value:
        kept = ops.detach(ops.sigmoid(ops.affine(x, self.alpha, self.beta)))
        y = ops.relu(x) if self.activation is None else self.activation(x)
        if x.graph.training:
            kept = ops.less(ops.uniform_like(kept), kept)
        return ops.multiply(y, kept)

    def extra(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}"


class StochasticDepth(Module):
    """A residual block that some samples of a batch bypass in training (Huang et al. 2016):
    ``y = x + block(x) / (1 - p)``, or ``y = x`` with probability `p`.

    In evaluation ``y = x + block(x)``.

    Args:
        block: a module whose output has its input's shape.
        p: probability that a sample bypasses the block, in [0, 1).

    Raises OptionError for a `p` outside [0, 1) and a `block` that is no module; ShapeError for a
    block whose output has another shape than its input.

    >>> from fastnn import nn
    >>> block = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    >>> layer = nn.StochasticDepth(block, 0.2)
    """

    def __init__(self, block: Module, p: float = 0.5):
        if not isinstance(block, Module):
            raise OptionError(f"StochasticDepth: expected a module as block, got {block!r}")
        self.block, self.p = block, _probability("StochasticDepth", p)

    def forward(self, x: Value) -> Value:
        y = self.block(x)
        if not isinstance(y, Value) or y.shape != x.shape:
            shape = y.shape if isinstance(y, Value) else type(y).__name__
            raise ShapeError(
                f"{where(x.graph.scope)}StochasticDepth: expected a block whose output has its "
                f"input's shape {x.shape}, got {shape}"
            )
        if x.graph.training and self.p:
            ones = x.graph.full((x.shape[0], *[1] * (x.ndim - 1)), 1.0, x.batched)
            y = ops.multiply(y, ops.dropout(ones, self.p))
        return ops.add(x, y)

    def extra(self) -> str:
        return f"p={self.p}"


publish(globals(), type)
