"""Initialisers: functions ``init(shape, rng, **options)`` that return a float64 array.

Weights have PyTorch's shape ``(out, in, *kernel)``, so ``fan_in = in · prod(kernel)`` and
``fan_out = out · prod(kernel)``. ``rng`` is a `numpy.random.Generator`. Layers take an initialiser
by its name, as a number, or as any function of ``(shape, rng)``; `get` resolves all three and binds
options:

>>> rng = np.random.default_rng(0)
>>> glorot_uniform((128, 256), rng).shape
(128, 256)
>>> he_normal_out = get("he_normal", mode="fan_out")
>>> he_normal_out((64, 32, 3), rng).shape
(64, 32, 3)
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn.errors import OptionError

Shape: TypeAlias = tuple[int, ...]
Weights: TypeAlias = NDArray[np.float64]
Initializer: TypeAlias = Callable[[Shape, np.random.Generator], Weights]


class Following:
    """An initialiser that is computed of another parameter's contents: those that it has, or is
    about to get.

    Args:
        of: the other parameter.
        path: its name, seen from the module that has this one.
        function: of its contents.
    """

    def __init__(self, of: Any, path: str, function: Callable[[Weights], Weights]):
        self.of, self.path, self.function = of, path, function

    def drawn(self, seed: int, name: str) -> Weights:
        """The contents for the parameter of a name, where the other one is drawn from a seed."""
        how = self.of._drawn  # what was drawn without a chosen seed is about to be drawn anew
        if self.of.initialized and (how is None or how[3] != self.of.checksum()):
            return self.function(self.of.read())
        before = name.rpartition(".")[0]
        path = f"{before}.{self.path}" if before else self.path
        return self.function(self.of.draw(seed, path))

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        raise OptionError("this initialiser follows a parameter and is drawn with it")


def fans(shape: Shape) -> tuple[int, int]:
    """``(fan_in, fan_out)`` of a weight of shape ``(out, in, *kernel)``.

    Raises OptionError for fewer than two dimensions, and where a dimension is 0.

    >>> fans((64, 32, 3))
    (96, 192)
    """
    if len(shape) < 2:
        raise OptionError(
            f"this initialiser needs a weight of shape (out, in, *kernel), got {shape}; "
            "for a vector use zeros, ones, constant, uniform or normal"
        )
    if min(shape) < 1:
        raise OptionError(f"every dimension of a weight must be at least 1, got {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def gain(nonlinearity: str, negative_slope: float = 0.01) -> float:
    """The factor by which weights must grow to undo what a nonlinearity does to the variance.

    As `torch.nn.init.calculate_gain`: linear and sigmoid 1, tanh 5/3, relu √2, leaky_relu
    √(2 / (1 + negative_slope²)), selu 3/4.

    >>> gain("relu") == math.sqrt(2)
    True
    """
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + negative_slope**2)),
        "selu": 0.75,
    }
    if nonlinearity not in gains:
        raise OptionError(
            f"no gain is known for nonlinearity {nonlinearity!r}; choose one of {', '.join(gains)}"
        )
    return gains[nonlinearity]


def zeros(shape: Shape, rng: np.random.Generator) -> Weights:
    """All 0."""
    return np.zeros(shape)


def ones(shape: Shape, rng: np.random.Generator) -> Weights:
    """All 1."""
    return np.ones(shape)


def constant(shape: Shape, rng: np.random.Generator, *, value: float) -> Weights:
    """All equal to `value`; the usual one is 1 for the forget gate's bias of an LSTM."""
    return np.full(shape, value, np.float64)


def uniform(
    shape: Shape, rng: np.random.Generator, *, low: float = -0.05, high: float = 0.05
) -> Weights:
    """Uniform in [low, high). The default is Keras's; PyTorch's is [0, 1)."""
    if not low <= high:
        raise OptionError(f"uniform: low must not be above high, got low={low}, high={high}")
    return rng.uniform(low, high, shape)


def normal(
    shape: Shape, rng: np.random.Generator, *, mean: float = 0.0, std: float = 0.05
) -> Weights:
    """Normal with the given mean and standard deviation. The default is Keras's."""
    _at_least_zero("normal", std=std)
    return rng.normal(mean, std, shape)


def truncated_normal(
    shape: Shape,
    rng: np.random.Generator,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
) -> Weights:
    """Normal, drawn again where it falls outside [low, high].

    The bounds are values, as in `torch.nn.init.trunc_normal_`, not multiples of `std`. Raises
    OptionError where less than 1 % of the distribution lies between them.
    """
    if not std > 0:
        raise OptionError(f"truncated_normal: std must be above 0, got {std}")
    inside = math.erf((high - mean) / (std * math.sqrt(2))) - math.erf(
        (low - mean) / (std * math.sqrt(2))
    )
    if not inside / 2 >= 0.01:
        raise OptionError(
            f"truncated_normal: [{low}, {high}] holds less than 1 % of a normal distribution with "
            f"mean {mean} and std {std}; widen the bounds or use uniform"
        )
    values = rng.normal(mean, std, shape)
    while (outside := (values < low) | (values > high)).any():
        values[outside] = rng.normal(mean, std, int(outside.sum()))
    return values


def glorot_uniform(shape: Shape, rng: np.random.Generator, *, gain: float = 1.0) -> Weights:
    """Uniform in ±gain · √(6 / (fan_in + fan_out)); PyTorch's `xavier_uniform_`.

    Keeps the variance of activations and of gradients for units that are about linear near 0, as
    tanh is. Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010.
    """
    _at_least_zero("glorot_uniform", gain=gain)
    return _uniform_of_std(shape, rng, gain * math.sqrt(2 / sum(fans(shape))))


def glorot_normal(shape: Shape, rng: np.random.Generator, *, gain: float = 1.0) -> Weights:
    """Normal with std = gain · √(2 / (fan_in + fan_out)); PyTorch's `xavier_normal_`.

    Not truncated (Keras truncates at two standard deviations). Glorot and Bengio, 2010.
    """
    _at_least_zero("glorot_normal", gain=gain)
    return rng.normal(0.0, gain * math.sqrt(2 / sum(fans(shape))), shape)


def he_uniform(
    shape: Shape,
    rng: np.random.Generator,
    *,
    mode: str = "fan_in",
    nonlinearity: str = "relu",
    negative_slope: float = 0.0,
) -> Weights:
    """Uniform in ±gain · √(3 / fan); PyTorch's `kaiming_uniform_`.

    ``gain`` follows from the nonlinearity (`gain`; `negative_slope` is leaky_relu's). `mode`:
    "fan_in" keeps the variance of activations, "fan_out" that of gradients. He, Zhang, Ren and Sun,
    "Delving deep into rectifiers", 2015.
    """
    return _uniform_of_std(shape, rng, _he_std(shape, mode, nonlinearity, negative_slope))


def he_normal(
    shape: Shape,
    rng: np.random.Generator,
    *,
    mode: str = "fan_in",
    nonlinearity: str = "relu",
    negative_slope: float = 0.0,
) -> Weights:
    """Normal with std = gain / √fan; PyTorch's `kaiming_normal_`, options as for `he_uniform`.

    Not truncated (Keras truncates at two standard deviations). He, Zhang, Ren and Sun, 2015.
    """
    return rng.normal(0.0, _he_std(shape, mode, nonlinearity, negative_slope), shape)


def lecun_uniform(shape: Shape, rng: np.random.Generator) -> Weights:
    """Uniform in ±√(3 / fan_in). LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998."""
    return _uniform_of_std(shape, rng, 1 / math.sqrt(fans(shape)[0]))


def lecun_normal(shape: Shape, rng: np.random.Generator) -> Weights:
    """Normal with std = 1 / √fan_in; what SELU needs.

    LeCun et al., 1998; Klambauer et al., "Self-normalizing neural networks", 2017.
    """
    return rng.normal(0.0, 1 / math.sqrt(fans(shape)[0]), shape)


def orthogonal(shape: Shape, rng: np.random.Generator, *, gain: float = 1.0) -> Weights:
    """gain · Q, rows (or columns, where there are fewer) orthonormal; PyTorch's `orthogonal_`.

    The weight is taken as a matrix ``(out, in · prod(kernel))``; Q comes from the QR decomposition
    of a normal matrix with R's diagonal made positive: uniform among the orthogonal matrices.
    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2014.
    """
    fan_in, _ = fans(shape)
    rows, cols = shape[0], fan_in
    q, r = np.linalg.qr(rng.normal(size=(max(rows, cols), min(rows, cols))))
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    return np.ascontiguousarray(gain * (q if rows >= cols else q.T)).reshape(shape)


def identity(shape: Shape, rng: np.random.Generator, *, gain: float = 1.0) -> Weights:
    """gain · I (1 on the main diagonal, 0 elsewhere); only for matrices.

    The recurrent weight of an IRNN: Le, Jaitly and Hinton, "A simple way to initialize recurrent
    networks of rectified linear units", 2015.
    """
    if len(shape) != 2:
        raise OptionError(f"identity needs a matrix (out, in), got shape {shape}; use orthogonal")
    return gain * np.eye(*shape)


def sparse(
    shape: Shape, rng: np.random.Generator, *, nonzero: int = 15, std: float = 1.0
) -> Weights:
    """Each unit (row) gets `nonzero` normal incoming weights at random places, the rest is 0.

    A unit with fewer inputs than `nonzero` is dense. Only for matrices ``(out, in)``. PyTorch's
    `sparse_` takes the share of zeros a column instead. Martens, "Deep learning via Hessian-free
    optimization", 2010.
    """
    if len(shape) != 2:
        raise OptionError(f"sparse needs a matrix (out, in), got shape {shape}; use he_normal")
    if nonzero < 1:
        raise OptionError(f"sparse: nonzero must be at least 1, got {nonzero}")
    _at_least_zero("sparse", std=std)
    places = np.argsort(rng.random(shape), axis=1)[:, :nonzero]
    values = np.zeros(shape)
    np.put_along_axis(values, places, rng.normal(0.0, std, places.shape), axis=1)
    return values


def torch_linear(shape: Shape, rng: np.random.Generator) -> Weights:
    """Uniform in ±1 / √fan_in: what PyTorch's Linear and convolutions start from.

    It is their ``kaiming_uniform_(weight, a=sqrt(5))``, written out.
    """
    bound = 1 / math.sqrt(fans(shape)[0])
    return rng.uniform(-bound, bound, shape)


def torch_bias(shape: Shape, rng: np.random.Generator, *, fan_in: int) -> Weights:
    """Uniform in ±1 / √fan_in, with the fan-in of the bias's weight: PyTorch's bias.

    >>> torch_bias((128,), np.random.default_rng(0), fan_in=256).shape
    (128,)
    """
    if fan_in < 1:
        raise OptionError(f"torch_bias: fan_in must be at least 1, got {fan_in}")
    bound = 1 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape)


INITIALIZERS: dict[str, Callable[..., Weights]] = {
    function.__name__: function
    for function in (
        zeros,
        ones,
        constant,
        uniform,
        normal,
        truncated_normal,
        glorot_uniform,
        glorot_normal,
        he_uniform,
        he_normal,
        lecun_uniform,
        lecun_normal,
        orthogonal,
        identity,
        sparse,
        torch_linear,
        torch_bias,
    )
} | {
    "xavier_uniform": glorot_uniform,
    "xavier_normal": glorot_normal,
    "kaiming_uniform": he_uniform,
    "kaiming_normal": he_normal,
}


def get(init: str | float | Callable[..., Weights], **options: Any) -> Initializer:
    """The initialiser for a name, a number (constant) or a function, with `options` bound to it.

    Raises OptionError for an unknown name or option, a missing option, or any other kind of object.

    >>> get("orthogonal", gain=0.5)((2, 2), np.random.default_rng(0)).shape
    (2, 2)
    >>> get(1.0)((3,), np.random.default_rng(0))
    array([1., 1., 1.])
    """
    if isinstance(init, int | float) and not isinstance(init, bool):
        if not math.isfinite(init):
            raise OptionError(f"an initialiser that is a number has to be finite, got {init}")
        return functools.partial(constant, value=float(init), **options)
    if isinstance(init, str):
        if init not in INITIALIZERS:
            names = ", ".join(sorted(INITIALIZERS))
            raise OptionError(f"unknown initialiser {init!r}; choose one of {names}")
        function = INITIALIZERS[init]
        try:
            inspect.signature(function).bind((), None, **options)
        except TypeError as error:
            raise OptionError(f"initialiser {init}: {error}") from None
        return functools.partial(function, **options) if options else function
    if callable(init):
        return functools.partial(init, **options) if options else init
    raise OptionError(
        "an initialiser is a name, a number or a function of (shape, rng), "
        f"got {type(init).__name__}"
    )


def _he_std(shape: Shape, mode: str, nonlinearity: str, negative_slope: float) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise OptionError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(shape)[mode == "fan_out"]
    return gain(nonlinearity, negative_slope) / math.sqrt(fan)


def _uniform_of_std(shape: Shape, rng: np.random.Generator, std: float) -> Weights:
    bound = math.sqrt(3) * std
    return rng.uniform(-bound, bound, shape)


def _at_least_zero(name: str, **options: float) -> None:
    for option, value in options.items():
        if not value >= 0:
            raise OptionError(f"{name}: {option} must be at least 0, got {value}")
