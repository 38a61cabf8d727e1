"""Activations as layers; the formulas are in `kernels/scalar.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from fastnn import ops
from fastnn.errors import OptionError, check_numbers, check_whole
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.public import publish


class _Activation(Module):
    """A function of `fastnn.ops` without parameters as a layer, whose documentation it has."""

    function: ClassVar[staticmethod[[Any], Value]]

    def __init_subclass__(cls, of: Callable[[Any], Value] | None = None):
        super().__init_subclass__()
        if of is not None:
            cls.function = staticmethod(of)
            cls.__doc__ = cls.__doc__ or of.__doc__

    def forward(self, x: Value) -> Value:
        return self.function(x)


class ReLU(_Activation, of=ops.relu): ...


class SELU(_Activation, of=ops.selu): ...


class SiLU(_Activation, of=ops.silu): ...


class Sigmoid(_Activation, of=ops.sigmoid): ...


class Tanh(_Activation, of=ops.tanh): ...


class LeakyReLU(Module):
    """x where positive, else ``negative_slope * x`` (Maas et al. 2013).

    Raises OptionError unless `negative_slope` is a finite number.

    >>> nn.LeakyReLU(0.1).predict(np.array([[-1.0, 2.0]], np.float32))
    array([[-0.1,  2. ]], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.01):
        check_numbers("LeakyReLU", negative_slope=negative_slope)
        self.negative_slope = float(negative_slope)

    def forward(self, x: Value) -> Value:
        return ops.leaky_relu(x, self.negative_slope)

    def extra(self) -> str:
        return f"{self.negative_slope}"


class PReLU(Module):
    """Leaky ReLU with a trained slope (He et al. 2015).

    Args:
        num_parameters: 1, or one for each feature (the last dimension).
        init: what the slopes begin with.

    Attributes:
        weight: the slopes, shape (num_parameters,).

    Raises OptionError for `num_parameters` below 1; ShapeError for an input with another number of
    features.

    >>> nn.PReLU().predict(np.array([[-1.0, 2.0]], np.float32))
    array([[-0.25,  2.  ]], dtype=float32)
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25):
        check_whole("PReLU", 1, num_parameters=num_parameters)
        check_numbers("PReLU", init=init)
        self.weight = Parameter((num_parameters,), float(init))

    def forward(self, x: Value) -> Value:
        return ops.prelu(x, self.weight)

    def extra(self) -> str:
        return f"{self.weight.size}"


class ELU(Module):
    """x where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016).

    Raises OptionError unless `alpha` is a finite number.

    >>> nn.ELU().predict(np.array([[-1.0, 2.0]], np.float32))
    array([[-0.63212055,  2.        ]], dtype=float32)
    """

    def __init__(self, alpha: float = 1.0):
        check_numbers("ELU", alpha=alpha)
        self.alpha = float(alpha)

    def forward(self, x: Value) -> Value:
        return ops.elu(x, self.alpha)

    def extra(self) -> str:
        return f"{self.alpha}"


class GELU(Module):
    """x times the normal distribution function (Hendrycks & Gimpel 2016).

    Args:
        approximate: "none" for the exact function, "tanh" for the approximation.

    Raises OptionError for another `approximate`.

    >>> nn.GELU().predict(np.array([[-1.0, 2.0]], np.float32))
    array([[-0.15865526,  1.9544997 ]], dtype=float32)
    """

    def __init__(self, approximate: str = "none"):
        if approximate not in ("none", "tanh"):
            raise OptionError(f"GELU: expected approximate 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Value) -> Value:
        return ops.gelu(x, self.approximate)


class Softplus(Module):
    """log(1 + exp(beta x)) / beta (Dugas et al. 2001); linear where beta * x > threshold.

    Raises OptionError unless `beta` is above 0.

    >>> nn.Softplus().predict(np.array([[-1.0, 2.0]], np.float32))
    array([[0.3132617, 2.126928 ]], dtype=float32)
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        check_numbers("Softplus", beta=beta)
        check_numbers("Softplus", True, threshold=threshold)
        if not beta > 0:
            raise OptionError(f"Softplus: expected beta > 0, got {beta}")
        self.beta, self.threshold = float(beta), float(threshold)

    def forward(self, x: Value) -> Value:
        return ops.softplus(x, self.beta, self.threshold)


class Softmax(_Activation, of=ops.softmax):
    """Softmax over the last dimension. For training use `CrossEntropyLoss` on its input instead.

    >>> nn.Softmax().predict(np.zeros((1, 4), np.float32))
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """


class LogSoftmax(_Activation, of=ops.log_softmax):
    """Logarithm of the softmax over the last dimension.

    >>> nn.LogSoftmax().predict(np.zeros((1, 4), np.float32)).round(3)
    array([[-1.386, -1.386, -1.386, -1.386]], dtype=float32)
    """


class Maxout(Module):
    """Largest of `pieces` blocks of features (Goodfellow et al. 2013).

    (..., pieces * C) becomes (..., C): output c is the maximum of inputs c, C + c, 2C + c, ...
    Put a `Linear` with ``pieces * C`` outputs before it.

    Raises OptionError for `pieces` below 1; ShapeError for a number of features that they do not
    divide.

    >>> nn.Maxout(2).predict(np.array([[1.0, 2.0, 3.0, 0.0]], np.float32))
    array([[3., 2.]], dtype=float32)
    """

    def __init__(self, pieces: int = 2):
        check_whole("Maxout", 1, pieces=pieces)
        self.pieces = int(pieces)

    def forward(self, x: Value) -> Value:
        return ops.maxout(x, self.pieces)

    def extra(self) -> str:
        return f"{self.pieces}"


publish(globals(), type)
