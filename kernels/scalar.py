"""Formulas of one operand, each once: activations and gradients, on vectors of either precision.

`<name>` is the function, `<name>_gradient` its derivative times the gradient `dy`, marked with
`gradient_of`: then the function has kernels of its own. A gradient is
written in terms of the output `y` where that is exact and cheaper, otherwise of the input `x`.
Mathematics (`exp`, `log`, `tanh`, ...) comes from `vector_math` and may be imported from here.
"""

from __future__ import annotations

from .declare import helper
from .elementwise.table import gradient_of
from .simd import (
    Vector,
    absolute,
    copysign,
    fill_like,
    fma,
    maximum,
    minimum,
    pick,
    sqrt,
    where,
)
from .vector_math import (
    cos,
    cos_turns,
    erf,
    exp,
    expm1,
    log,
    log1p_fraction,
    normal_density,
    normal_distribution,
    sigmoid,
    sin,
    sin_turns,
    tanh,
)

__all__ = [  # the mathematics that other kernels take from here
    "absolute",
    "cos",
    "cos_turns",
    "erf",
    "exp",
    "expm1",
    "log",
    "log1p_fraction",
    "normal_density",
    "normal_distribution",
    "sigmoid",
    "sin",
    "sin_turns",
    "sqrt",
    "tanh",
]

# Klambauer et al. (2017): the fixed point with mean 0 and variance 1
SELU_SCALE = 1.0507009873554804934
SELU_SCALE_ALPHA = 1.7580993408473768599
GELU_TANH_SCALE = 1.5957691216057307118  # 2 sqrt(2/pi)
GELU_TANH_CUBE = 0.044715


@helper
def _bounded(x: Vector) -> Vector:
    """x within bounds at which sigmoid, Phi and phi have reached their limits: beyond them,
    products such as x * sigmoid(x) would be infinity times 0."""
    bound = pick(x, 110.0, 760.0)
    return maximum(-bound, minimum(bound, x))


@helper
def relu(x: Vector) -> Vector:
    """max(x, 0) (Nair and Hinton 2010)."""
    return maximum(0.0, x)


@gradient_of(relu, many_zeros=True)
def relu_gradient(y: Vector, dy: Vector) -> Vector:
    """dy where y > 0, else 0 (NaN of y counts as above: its gradient is not hidden)."""
    return where(y <= 0.0, 0.0, dy)


@helper
def leaky_relu(x: Vector, slope: float) -> Vector:
    """x where x > 0, else slope*x (Maas, Hannun and Ng 2013)."""
    return where(x > 0.0, x, x * slope)


@gradient_of(leaky_relu)
def leaky_relu_gradient(x: Vector, dy: Vector, slope: float) -> Vector:
    """dy where x > 0, else slope*dy."""
    return where(x > 0.0, dy, dy * slope)


@helper
def elu(x: Vector, alpha: float) -> Vector:
    """x where x > 0, else alpha*(e^x - 1) (Clevert et al. 2016)."""
    return where(x > 0.0, x, expm1(x) * alpha)


@gradient_of(elu)
def elu_gradient(x: Vector, dy: Vector, alpha: float) -> Vector:
    """dy where x > 0, else alpha*e^x*dy. (From the output, y + alpha, digits would cancel.)"""
    return where(x > 0.0, dy, exp(x) * alpha * dy)


@helper
def selu(x: Vector) -> Vector:
    """ELU scaled to keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    return where(x > 0.0, x * SELU_SCALE, expm1(x) * SELU_SCALE_ALPHA)


@gradient_of(selu)
def selu_gradient(x: Vector, dy: Vector) -> Vector:
    """scale*dy where x > 0, else scale*alpha*e^x*dy."""
    return where(x > 0.0, dy * SELU_SCALE, exp(x) * SELU_SCALE_ALPHA * dy)


@helper
def gelu(x: Vector) -> Vector:
    """x*Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016)."""
    # only the left end: +infinity has to stay
    return maximum(-pick(x, 110.0, 760.0), x) * normal_distribution(x)


@gradient_of(gelu)
def gelu_gradient(x: Vector, dy: Vector) -> Vector:
    """(Phi(x) + x*phi(x))*dy."""
    return fma(_bounded(x), normal_density(x), normal_distribution(x)) * dy


@helper
def gelu_tanh(x: Vector) -> Vector:
    """x/2 (1 + tanh u) = x*sigmoid(2u), u = sqrt(2/pi)(x + 0.044715 x^3) (Hendrycks and Gimpel
    2016)."""
    return maximum(-pick(x, 110.0, 760.0), x) * sigmoid(_gelu_tanh_inner(_bounded(x)))


@helper
def _gelu_tanh_inner(x: Vector) -> Vector:
    return x * GELU_TANH_SCALE * fma(x * x, GELU_TANH_CUBE, 1.0)


@gradient_of(gelu_tanh)
def gelu_tanh_gradient(x: Vector, dy: Vector) -> Vector:
    """(s + x s (1-s) v')*dy with s = sigmoid(v), v = 2u, v' = 2 sqrt(2/pi)(1 + 3*0.044715 x^2)."""
    x = _bounded(x)
    s = sigmoid(_gelu_tanh_inner(x))
    slope = GELU_TANH_SCALE * fma(x * x, 3.0 * GELU_TANH_CUBE, 1.0)
    return s * fma(x * slope, 1.0 - s, 1.0) * dy


@helper
def silu(x: Vector) -> Vector:
    """x*sigmoid(x) (Elfwing, Uchibe and Doya 2018). 0 once e^-x overflows (|y| < 1e-37)."""
    return maximum(-pick(x, 110.0, 760.0), x) * sigmoid(x)


@gradient_of(silu)
def silu_gradient(x: Vector, dy: Vector) -> Vector:
    """s (1 + x (1-s))*dy with s = sigmoid(x)."""
    x = _bounded(x)
    s = sigmoid(x)
    return s * fma(x, 1.0 - s, 1.0) * dy


@gradient_of(sigmoid)
def sigmoid_gradient(y: Vector, dy: Vector) -> Vector:
    """y (1-y)*dy."""
    return y * (1.0 - y) * dy


@gradient_of(tanh)
def tanh_gradient(y: Vector, dy: Vector) -> Vector:
    """(1 - y^2)*dy."""
    return fma(-y, y, 1.0) * dy


@helper
def softplus(x: Vector, beta: float, threshold: float) -> Vector:
    """log(1 + e^(beta x))/beta, and x itself where beta*x > threshold (Dugas et al. 2001; the
    threshold is PyTorch's). Computed as max(z, 0) + log(1 + e^-|z|), z = beta*x."""
    z = x * beta
    value = (maximum(0.0, z) + log1p_fraction(exp(-absolute(z)))) / beta
    return where(z > threshold, x, value)


@gradient_of(softplus)
def softplus_gradient(x: Vector, dy: Vector, beta: float, threshold: float) -> Vector:
    """sigmoid(beta x)*dy, and dy itself where beta*x > threshold."""
    z = x * beta
    return where(z > threshold, dy, sigmoid(z) * dy)


@gradient_of(exp)
def exp_gradient(y: Vector, dy: Vector) -> Vector:
    """y*dy."""
    return y * dy


@gradient_of(log)
def log_gradient(x: Vector, dy: Vector) -> Vector:
    """dy/x."""
    return dy / x


@gradient_of(sqrt)
def sqrt_gradient(y: Vector, dy: Vector) -> Vector:
    """dy/(2y)."""
    return dy / (y + y)


@helper
def square(x: Vector) -> Vector:
    """x^2."""
    return x * x


@gradient_of(square)
def square_gradient(x: Vector, dy: Vector) -> Vector:
    """2x*dy."""
    return (x + x) * dy


@gradient_of(absolute)
def absolute_gradient(x: Vector, dy: Vector) -> Vector:
    """sign(x)*dy, with sign(0) = 0; NaN stays NaN."""
    return where(absolute(x) > 0.0, copysign(fill_like(x, 1.0), x) * dy, x * dy)


@gradient_of(erf)
def erf_gradient(x: Vector, dy: Vector) -> Vector:
    """2/sqrt(pi) e^(-x^2)*dy."""
    return normal_density(x * 1.4142135623730950488) * 2.8284271247461900976 * dy


@gradient_of(sin)
def sin_gradient(x: Vector, dy: Vector) -> Vector:
    """cos(x)*dy."""
    return cos(x) * dy


@gradient_of(cos)
def cos_gradient(x: Vector, dy: Vector) -> Vector:
    """-sin(x)*dy."""
    return -sin(x) * dy
