"""Dropout and normalisation."""

from __future__ import annotations

from fastnn import ops
from fastnn.errors import OptionError
from fastnn.graph.graph import Value
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter


class Dropout(Module):
    """Sets elements to zero with probability `p` in training (Srivastava et al. 2014).

    Args:
        p: probability of zero, in [0, 1].
        classic: False: the kept elements are multiplied by 1/(1-p) in training (inverted dropout,
            as in PyTorch and Keras). True: nothing is scaled in training, and in evaluation
            everything is multiplied by 1-p, as in the paper.

    The mask depends on the seed, the step, the layer and the element only, not on the number of
    workers.
    """

    def __init__(self, p: float = 0.5, classic: bool = False):
        if not 0 <= p <= 1:
            raise OptionError(f"Dropout: expected p in [0, 1], got {p}")
        self.p, self.classic = float(p), bool(classic)

    def forward(self, x: Value) -> Value:
        if self.p == 0:
            return x
        if x.graph.training:
            return ops.dropout(x, self.p, 1.0 if self.classic else None)
        return ops.affine(x, 1.0 - self.p, 0.0) if self.classic else x

    def extra(self) -> str:
        return f"{self.p}" + (", classic=True" if self.classic else "")


class LayerNorm(Module):
    """Normalises each row to mean 0 and variance 1, then gain and bias (Ba et al. 2016).

    Args:
        num_features: size C of the last dimension.
        eps: added to the variance.
        affine: whether there are gain and bias.

    Attributes:
        weight: the gain, shape (C,). bias: shape (C,). Both None without `affine`.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True):
        self.num_features, self.eps = int(num_features), float(eps)
        self.weight = Parameter((num_features,), 1.0) if affine else None
        self.bias = Parameter((num_features,), 0.0) if affine else None

    def forward(self, x: Value) -> Value:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)

    def extra(self) -> str:
        return f"{self.num_features}"


class BatchNorm(Module):
    """Normalises each feature over the batch (Ioffe & Szegedy 2015); features are last.

    In training with the batch's mean and (biased) variance; running averages, with the unbiased
    variance as in PyTorch, serve evaluation.

    Args:
        num_features: size C of the last dimension.
        eps: added to the variance.
        momentum: weight of the new batch in the running averages.

    Attributes:
        weight, bias: gain and bias, shape (C,). running_mean, running_var: buffers, shape (C,).
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        if not 0 <= momentum <= 1:
            raise OptionError(f"BatchNorm: expected momentum in [0, 1], got {momentum}")
        self.num_features, self.eps, self.momentum = int(num_features), float(eps), float(momentum)
        self.weight = Parameter((num_features,), 1.0)
        self.bias = Parameter((num_features,), 0.0)
        self.running_mean = Parameter((num_features,), 0.0, trainable=False)
        self.running_var = Parameter((num_features,), 1.0, trainable=False)

    def forward(self, x: Value) -> Value:
        return ops.batch_norm(
            x, self.weight, self.bias, self.running_mean, self.running_var, self.eps, self.momentum
        )

    def extra(self) -> str:
        return f"{self.num_features}"
