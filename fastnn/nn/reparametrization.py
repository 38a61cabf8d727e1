"""Layers whose weights are computed of other parameters: their length apart, or limited."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, check_numbers, check_whole
from fastnn.graph.value import Value
from fastnn.nn.constant import standing_for
from fastnn.nn.convolution import ConvTranspose1d, ConvTranspose2d
from fastnn.nn.init import Following
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.ops.operands import as_shown, as_value
from fastnn.public import publish


class _Reparametrized(Module):
    """A layer with a value in the place of one of its parameters.

    The wrapped layer's parameters keep their names under `layer`.
    """

    layer: Module

    def _choose(self, layer: Module, name: str) -> Parameter:
        """The parameter, a matrix or more."""
        kind = type(self).__name__
        named = isinstance(layer, Module) and isinstance(name, str)
        parameter = getattr(layer, name, None) if named else None
        if not isinstance(parameter, Parameter) or len(parameter.shape) < 2 or parameter.buffer:
            raise OptionError(
                f"{kind}: expected a layer that has a parameter {name!r} of two axes or more, got "
                f"{layer!r}; give another name"
            )
        self.layer, self.name = layer, name
        return parameter

    @property
    def parameter(self) -> Parameter:
        """The layer's own parameter, of which its weights are computed."""
        found: Parameter = getattr(self.layer, self.name)
        return found

    def _weights(self, weight: Value) -> Value:
        """What stands for the parameter, in its shape in memory."""
        raise NotImplementedError

    def _parts(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Of the parameters that PyTorch's `parametrizations` have in the place of the layer's: own
        name, name and shape there."""
        raise NotImplementedError

    def _named_in_pytorch(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Parameters and buffers by name, with name and shape in PyTorch's `parametrizations`."""
        found = {f"layer.{n}": (n, p.shape) for n, p in self.layer.named_arrays().items()}
        return found | {
            own: (f"parametrizations.{self.name}.{name}", shape)
            for own, (name, shape) in self._parts().items()
        }

    def forward(self, *inputs: Any, **options: Any) -> Any:
        parameter = self.parameter
        graph = next(v.graph for v in (*inputs, *options.values()) if isinstance(v, Value))
        weight = as_value(graph, parameter)
        with standing_for(graph, {parameter: self._weights(weight)}):
            return self.layer(*inputs, **options)

    def handed_on(self, result: Any) -> Any:
        return self.layer.handed_on(result)


class WeightNorm(_Reparametrized):
    """Weights of a layer as direction and length (Salimans & Kingma 2016)::

        w = gain * v / |v|        for each unit

    v is the layer's own parameter. In the beginning `gain` is its length, so the layer computes
    what it does without.

    Args:
        layer: the layer: `Linear`, a convolution, a recurrent layer (give `name`), or your own.
        name: of the parameter.

    Attributes:
        gain: a length for each unit, that is for each index of the parameter's first axis (as
            PyTorch's ``dim=0``).

    Shapes: those of the layer.

    Raises OptionError for a layer without such a parameter of two axes or more.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> net = nn.WeightNorm(nn.Linear(3, 2))
    >>> bool(np.allclose(net.gain.value, np.linalg.norm(net.layer.weight.value, axis=1)))
    True
    """

    def __init__(self, layer: Module, name: str = "weight"):
        parameter = self._choose(layer, name)
        self.gain = Parameter(
            (parameter.shape[0],), Following(parameter, f"layer.{name}", _lengths)
        )

    def _parts(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        shape = self.parameter.shape
        lengths = (shape[0], *[1] * (len(shape) - 1))
        return {"gain": ("original0", lengths), f"layer.{self.name}": ("original1", shape)}

    def _weights(self, weight: Value) -> Value:
        columns = self.parameter.transposed  # units are the last axis in memory, not the first
        units = self.parameter.shape[0]
        matrix = ops.reshape(weight, (-1, units) if columns else (units, -1))
        squares = ops.sum(ops.square(matrix), axis=0 if columns else 1, keepdims=True)
        gain = ops.reshape(as_value(weight.graph, self.gain), (1, -1) if columns else (-1, 1))
        return ops.reshape(ops.multiply(matrix, ops.divide(gain, ops.sqrt(squares))), weight.shape)


class SpectralNorm(_Reparametrized):
    """Weights of a layer divided by their largest singular value, so that the layer stretches no
    input by more than the factor 1 (Miyato et al. 2018)::

        w = W / sigma(W)

    sigma is found by power iteration, which goes on from step to step: each call in training does
    `iterations`. Its vectors count as constants in the gradient.

    Args:
        layer: the layer: `Linear`, a convolution (as a matrix of units and inputs of a window), or
            your own.
        name: of the parameter.
        iterations: of each call in training.
        eps: keeps divisors from being 0.

    Attributes:
        u, v: buffers, the singular vectors as far as they are known; u has one number for each
            unit, that is for each index of the parameter's first axis, of a transposed
            convolution's second, as in PyTorch. In the beginning they are those of the weights that
            are drawn.

    Shapes: those of the layer.

    Raises OptionError for `iterations` below 1, an `eps` that is not above 0, and a layer without
    such a parameter of two axes or more.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> net = nn.SpectralNorm(nn.Linear(5, 3))
    >>> mapped = net.predict(np.eye(5)) - net.layer.bias.value
    >>> float(np.linalg.svd(mapped)[1][0].round(3))
    1.0
    """

    def __init__(
        self, layer: Module, name: str = "weight", iterations: int = 1, eps: float = 1e-12
    ):
        check_whole("SpectralNorm", 1, iterations=iterations)
        check_numbers("SpectralNorm", eps=eps)
        if not eps > 0:
            raise OptionError(f"SpectralNorm: expected eps > 0, got {eps}")
        parameter = self._choose(layer, name)
        self.iterations, self.eps = int(iterations), float(eps)
        self.axis = int(isinstance(layer, (ConvTranspose1d, ConvTranspose2d)))
        units, path = parameter.shape[self.axis], f"layer.{name}"
        left, right = (partial(f, axis=self.axis) for f in (_left, _right))
        self.u = Parameter((units,), Following(parameter, path, left), trainable=False)
        inputs = parameter.size // units
        self.v = Parameter((inputs,), Following(parameter, path, right), trainable=False)

    def _parts(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {
            f"layer.{self.name}": ("original", self.parameter.shape),
            "u": ("0._u", self.u.shape), "v": ("0._v", self.v.shape),
        }  # fmt: skip

    def _unit(self, vector: Value) -> Value:
        size = ops.sqrt(ops.sum(ops.square(vector)))
        return ops.divide(vector, ops.maximum(size, self.eps))

    def _weights(self, weight: Value) -> Value:
        graph, rows = weight.graph, as_shown(weight.graph, self.parameter)
        if self.axis:
            rows = ops.transpose(rows, (1, 0, *range(2, rows.ndim)))
        rows = ops.reshape(rows, (self.u.size, -1))
        u = ops.reshape(as_value(graph, self.u), (1, -1))
        v = ops.reshape(as_value(graph, self.v), (1, -1))
        if graph.training:
            fixed = ops.detach(rows)
            for _ in range(self.iterations):
                u = self._unit(ops.matmul(v, ops.transpose(fixed, (1, 0))))
                v = self._unit(ops.matmul(u, fixed))
            ops.store_state(ops.reshape(u, self.u.shape), self.u)
            ops.store_state(ops.reshape(v, self.v.shape), self.v)
        sigma = ops.sum(ops.multiply(ops.matmul(ops.detach(u), rows), ops.detach(v)))
        return ops.divide(weight, sigma)


def _lengths(weight: np.ndarray) -> np.ndarray:
    return np.linalg.norm(weight.reshape(len(weight), -1).astype(np.float64), axis=1)


def _singular(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The singular vectors of the largest value, by 50 steps of power iteration; `axis` is that of
    the units."""
    matrix = np.moveaxis(weight, axis, 0)
    matrix = matrix.reshape(len(matrix), -1).astype(np.float64)
    v = np.random.default_rng(0).normal(size=matrix.shape[1])
    for _ in range(50):
        u = matrix @ v
        u /= max(float(np.linalg.norm(u)), 1e-300)
        v = u @ matrix
        v /= max(float(np.linalg.norm(v)), 1e-300)
    return u, v


def _left(weight: np.ndarray, axis: int) -> np.ndarray:
    return _singular(weight, axis)[0]


def _right(weight: np.ndarray, axis: int) -> np.ndarray:
    return _singular(weight, axis)[1]


publish(globals(), type)
